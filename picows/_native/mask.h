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

static inline void picows_mask_word(uint8_t *dst, const uint8_t *src, uint64_t key)
{
    uint64_t word;
    memcpy(&word, src, sizeof word);
    word ^= key;
    memcpy(dst, &word, sizeof word);
}

/* dst[i] = src[i] ^ key[i % 4]; `key` holds its four bytes in the order in which they travel. */
static inline void picows_mask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    const uint64_t key64 = (uint64_t)key << 32 | key;

    while (n >= 64) {
        uint64_t block[8];
        memcpy(block, src, sizeof block);
        for (int i = 0; i < 8; i++)
            block[i] ^= key64;
        memcpy(dst, block, sizeof block);
        dst += 64;
        src += 64;
        n -= 64;
    }
    while (n >= 8) {
        picows_mask_word(dst, src, key64);
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

#endif
