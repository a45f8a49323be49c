/* Logarithm and exponential without libm, which the library does not link. Good to 13 digits. */
#ifndef WEFT_BASE_REAL_H
#define WEFT_BASE_REAL_H

#include <string.h>
#include "base/base.h"

#define REAL_LN2 0.693147180559945309417

/* x > 0 and normal. With x = 2^e m, m about 1: ln m = 2 artanh z, z = (m - 1) / (m + 1), whose series ends soon as |z| < 0.172. */
static inline double real_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & ((1ull << 52) - 1)) | 1023ull << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.414213562373095)
        m /= 2, e++;
    double z = (m - 1) / (m + 1), zz = z * z, sum = 0;
    for (int k = 19; k >= 1; k -= 2)
        sum = sum * zz + 1.0 / k;
    return 2 * z * sum + e * REAL_LN2;
}

/* x <= 0. With x = k ln 2 + r: 2^k times the series of e^r, |r| < 0.35. */
static inline double real_exp(double x)
{
    if (x < -700)
        return 0;
    int k = (int)(x / REAL_LN2 - 0.5);
    double r = x - k * REAL_LN2, sum = 1;
    for (int i = 14; i >= 1; i--)
        sum = 1 + sum * r / i;
    uint64_t bits = (uint64_t)(1023 + k) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

#endif
