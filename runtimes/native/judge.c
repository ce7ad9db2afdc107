/*
 * Scores to decisions. Windows overlap by most of their length, so one score says little that the last did not:
 * log-likelihood ratios are averaged over time, and a decision turns only past its own threshold and for a while.
 */
#include "internal.h"

#define HUGE_LLR 1e6 /* beyond any calibration: a broken one */

static int is_moderate(double x) { return x >= -HUGE_LLR && x <= HUGE_LLR; } /* false for NaN */

void spoof_rules_default(spoof_rules *rules) {
    *rules = (spoof_rules){.scale = 1, .time_constant = 3 * SPOOF_RATE};
}

int32_t spoof_judge_init(spoof_judge *judge, const spoof_rules *rules) {
    int legal = rules->scale > 0 && is_moderate(rules->scale) && is_moderate(rules->offset) &&
                rules->time_constant >= 0 && rules->time_constant <= 1e12 && is_moderate(rules->enter) &&
                is_moderate(rules->exit) && rules->exit >= rules->enter && rules->min_duration >= 0;
    *judge = (spoof_judge){0};
    return legal;
}

/* The share of the new score: old ones lose weight by the time that passed, not by how many there were. */
static double share(const spoof_judge *judge, const spoof_rules *rules, int64_t end) {
    if (!judge->scores || rules->time_constant <= 0) return 1;
    return 1 - spoof_exp(-(double)(end - judge->end) / rules->time_constant);
}

static int32_t side_of(const spoof_judge *judge, const spoof_rules *rules) {
    if (judge->smoothed < rules->enter) return SPOOF_SPOOF;
    if (judge->smoothed >= rules->exit) return SPOOF_BONAFIDE;
    return judge->decision;
}

int32_t spoof_judge_update(spoof_judge *judge, const spoof_rules *rules, double score, int64_t end) {
    double llr = rules->scale * score + rules->offset;
    if (!is_moderate(llr) || end < 0 || (judge->scores && end <= judge->end)) return 0;
    double weight = share(judge, rules, end);
    judge->smoothed = weight >= 1 ? llr : judge->smoothed + weight * (llr - judge->smoothed);
    judge->llr = llr;
    judge->end = end;
    judge->scores = 1;
    judge->changed = 0;
    int32_t side = side_of(judge, rules);
    if (side != judge->leaning) {
        judge->leaning = side;
        judge->turning = end;
    }
    if (side != judge->decision && end - judge->turning >= rules->min_duration) {
        judge->decision = side;
        judge->since = end;
        judge->changed = 1;
    }
    return 1;
}
