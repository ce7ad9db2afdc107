package io.antispoof.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import java.util.Arrays;
import java.util.Map;
import org.junit.Test;

public class TimingTest {
    private static final double EXACT = 1e-12;

    private static Timing.Block block(double median, Integer heat) {
        return new Timing.Block(1, 2, new double[] {median - 1, median, median + 1}, null, heat);
    }

    @Test
    public void quantilesAreNumpys() {
        double[] values = {4, 1, 3, 2}; // np.quantile gives 2.5, 3.7, 1, 4
        assertEquals(2.5, Timing.quantile(values, 0.5), EXACT);
        assertEquals(3.7, Timing.quantile(values, 0.9), EXACT);
        assertEquals(1, Timing.quantile(values, 0), EXACT);
        assertEquals(4, Timing.quantile(values, 1), EXACT);
        assertEquals(7, Timing.quantile(new double[] {7}, 0.9), EXACT);
    }

    @Test
    public void steadyAreTwoCoolBlocksThatAgree() {
        assertFalse(Timing.isSteady(Arrays.asList(block(10, 0))));
        assertTrue(Timing.isSteady(Arrays.asList(block(10, 0), block(10.29, null))));
        assertFalse(Timing.isSteady(Arrays.asList(block(10, 0), block(10.31, 0))));
        assertFalse(Timing.isSteady(Arrays.asList(block(10, 1), block(10, 0))));
    }

    @Test
    public void hotBlocksDoNotCount() throws Exception {
        Map<String, Object> figures = Timing.figures(Arrays.asList(block(10, 0), block(90, 3), block(20, 0)));
        assertEquals("{run=3, hot=1, used=2}", figures.get("blocks").toString());
        assertEquals(21, (Double) ((Map<?, ?>) figures.get("ms")).get("p90"), 1);
    }

    @Test(expected = Refusal.class)
    public void aDeviceThatIsAlwaysHotGivesNoFigures() throws Exception {
        Timing.figures(Arrays.asList(block(10, 3)));
    }

    @Test
    public void theLastPercentileNeedsAHundredRuns() {
        assertNull(Timing.percentiles(new double[99]).get("p99"));
        assertNotNull(Timing.percentiles(new double[100]).get("p99"));
    }

    @Test
    public void atMostTwoHundredTimesAreKeptFromFirstToLast() {
        assertEquals("[1.235, 2.0]", Timing.kept(new double[] {1.23456, 2}).toString());
        assertEquals("[7.0]", Timing.kept(new double[] {7}).toString());
        double[] times = new double[1_001];
        for (int i = 0; i < times.length; i++) {
            times[i] = i;
        }
        assertEquals(200, Timing.kept(times).size());
        assertEquals("[0.0, 5.0, 10.0]", Timing.kept(times).subList(0, 3).toString());
        assertEquals(1_000, Timing.kept(times).get(199), EXACT);
    }
}
