/* Elementary functions that give the same bits on every processor: plain double arithmetic in a fixed order. */
#include "internal.h"

#define LN2_HIGH 0.693147180369123816490 /* its last bits are zero: products with exponents are exact */
#define LN2_LOW 1.90821492927058770002e-10
#define LN10_OVER_10 0.230258509299404568402

double spoof_exp(double x) {
    if (x < -700) return 0;
    if (x > 700) x = 700;
    int32_t power = (int32_t)(x / (LN2_HIGH + LN2_LOW) + (x < 0 ? -0.5 : 0.5));
    double rest = x - power * LN2_HIGH - power * LN2_LOW; /* at most ln(2) / 2 */
    double sum = 1;
    for (int term = 15; term >= 1; term--) sum = 1 + sum * rest / term;
    uint64_t bits = (uint64_t)(1023 + power) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

double spoof_sin_pi(double x) {
    x -= 2.0 * (double)(int64_t)(x / 2); /* -2..2, exact */
    if (x > 1) x -= 2;
    if (x < -1) x += 2;
    if (x > 0.5) x = 1 - x;
    if (x < -0.5) x = -1 - x;
    double angle = PI * x, square = angle * angle, sum = 1;
    for (int term = 22; term >= 2; term -= 2) sum = 1 - sum * square / (term * (term + 1));
    return angle * sum;
}

double spoof_power_of_db(double db) { return spoof_exp(db * LN10_OVER_10); }

uint32_t spoof_crc32(const void *bytes, size_t count) {
    static const uint32_t nibbles[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                         0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                         0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    const unsigned char *byte = bytes;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < count; i++) {
        crc ^= byte[i];
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    return ~crc;
}

int32_t spoof_version(void) { return SPOOF_VERSION; }
