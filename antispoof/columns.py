"""How a window of audio becomes columns, and which of them a window that follows brings anew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Of an encoder that is run on the newest samples of a window, and goes on where it stopped.

    A window that begins ``n`` columns after the last one is encoded from its last ``overlap + n * column``
    samples. The first ``spoilt`` columns of that are dropped, for the piece's own edge is in them; the others
    take their place at the end of the map, of which the last ``frames`` columns count.

    Attributes:
        samples: Of a window.
        column: Samples from one column to the next.
        frames: Columns of a window.
        overlap: Samples before the new ones that the encoder reads again.
        spoilt: Columns that a piece makes before those that are right.
        edge: Columns at the beginning that are computed anew for every window, for its edge is in them.
        edge_samples: The samples that they are computed from.
    """

    samples: int
    column: int
    frames: int
    overlap: int
    spoilt: int = 0
    edge: int = 0
    edge_samples: int = 0

    @property
    def largest_hop(self) -> int:
        """How many columns a window may begin after the last one for a piece to be less than all of it."""
        return (self.samples - self.overlap - 1) // self.column

    def piece(self, hop_columns: int) -> int:
        """Returns how many samples at a window's end are encoded when it begins so many columns later."""
        return self.overlap + hop_columns * self.column

    def computed(self, hop_columns: int) -> int:
        """Returns how many samples are encoded for such a window in all."""
        return self.piece(hop_columns) + self.edge_samples
