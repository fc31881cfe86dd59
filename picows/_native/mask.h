/* The XOR masking of RFC 6455 section 5.3, at memory speed.
 *
 * No byte outside [dst, dst + n) and [src, src + n) is read or written. Every block is loaded whole before it is
 * stored, so dst may be src; otherwise the two ranges must not overlap. Any alignment will do.
 */
#ifndef PICOWS_MASK_H
#define PICOWS_MASK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The widest piece every processor of a platform can XOR at once. A vector is asked for by name: what a compiler makes
 * of a loop over words depends on where it is inlined, and can be four times slower. */
#if defined(__GNUC__)
typedef uint64_t picows_lane __attribute__((vector_size(16)));
#define PICOWS_LANE(word) {(word), (word)}
#else
typedef uint64_t picows_lane;
#define PICOWS_LANE(word) (word)
#endif

/* dst[i] = src[i] ^ key[i % 4]; `key` holds its four bytes in the order in which they travel. */
static inline void picows_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const uint64_t key64 = (uint64_t)key << 32 | key;
    const picows_lane key_lane = PICOWS_LANE(key64);
    const size_t lane = sizeof key_lane;

    while (n >= 4 * lane) {
        picows_lane a, b, c, d;
        memcpy(&a, src, lane);
        memcpy(&b, src + lane, lane);
        memcpy(&c, src + 2 * lane, lane);
        memcpy(&d, src + 3 * lane, lane);
        a ^= key_lane;
        b ^= key_lane;
        c ^= key_lane;
        d ^= key_lane;
        memcpy(dst, &a, lane);
        memcpy(dst + lane, &b, lane);
        memcpy(dst + 2 * lane, &c, lane);
        memcpy(dst + 3 * lane, &d, lane);
        dst += 4 * lane;
        src += 4 * lane;
        n -= 4 * lane;
    }
    while (n >= 8) {
        uint64_t word;
        memcpy(&word, src, sizeof word);
        word ^= key64;
        memcpy(dst, &word, sizeof word);
        dst += 8;
        src += 8;
        n -= 8;
    }
    if (n & 4) {
        uint32_t word;
        memcpy(&word, src, sizeof word);
        word ^= key;
        memcpy(dst, &word, sizeof word);
        dst += 4;
        src += 4;
    }
    if (n & 3) {
        uint8_t bytes[4];
        memcpy(bytes, &key, sizeof bytes);
        for (size_t i = 0; i < (n & 3); i++)
            dst[i] = src[i] ^ bytes[i];
    }
}

#undef PICOWS_LANE

#endif
