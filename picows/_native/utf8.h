/* Strict UTF-8 validation (RFC 3629): no overlong form, no surrogate, nothing above U+10FFFF.
 *
 * The state goes in and comes out, so text that arrives in pieces, cut anywhere, is checked piece by piece:
 *
 *     state = PICOWS_UTF8_ACCEPT;
 *     state = picows_utf8(state, piece, size);      for each piece
 *
 * PICOWS_UTF8_ACCEPT: valid so far and not inside a character. PICOWS_UTF8_REJECT: invalid, and stays so.
 * Anything else: valid so far, more bytes of a character are due.
 *
 * The validator is a finite automaton. Each byte has a row of 64 bits which holds the next state of every state; a
 * state is the position of its six bits in the row, so that one shift is one step. Absent entries are zero, REJECT.
 * Long text is compared in vectors instead, and the automaton looks at its ends.
 */
#ifndef PICOWS_UTF8_H
#define PICOWS_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PICOWS_UTF8_REJECT = 0,
    PICOWS_UTF8_ACCEPT = 6,
    PICOWS_UTF8_LAST_1 = 12,    /* one byte 80..BF is due */
    PICOWS_UTF8_LAST_2 = 18,
    PICOWS_UTF8_LAST_3 = 24,
    PICOWS_UTF8_AFTER_E0 = 30,  /* A0..BF is due: the others would be overlong */
    PICOWS_UTF8_AFTER_ED = 36,  /* 80..9F: the others would be surrogates */
    PICOWS_UTF8_AFTER_F0 = 42,  /* 90..BF: the others would be overlong */
    PICOWS_UTF8_AFTER_F4 = 48   /* 80..8F: the others would be above U+10FFFF */
};

#define TO(state, next) ((uint64_t)PICOWS_UTF8_##next << PICOWS_UTF8_##state)
#define X4(row) row, row, row, row
#define X16(row) X4(row), X4(row), X4(row), X4(row)
#define ASCII TO(ACCEPT, ACCEPT)
#define TAIL (TO(LAST_1, ACCEPT) | TO(LAST_2, LAST_1) | TO(LAST_3, LAST_2))
#define LEAD(next) TO(ACCEPT, next)

static const uint64_t picows_utf8_rows[256] = {
    /* 00..7F */ X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII), X16(ASCII),
    /* 80..8F */ X16(TAIL | TO(AFTER_ED, LAST_1) | TO(AFTER_F4, LAST_2)),
    /* 90..9F */ X16(TAIL | TO(AFTER_ED, LAST_1) | TO(AFTER_F0, LAST_2)),
    /* A0..BF */ X16(TAIL | TO(AFTER_E0, LAST_1) | TO(AFTER_F0, LAST_2)),
                 X16(TAIL | TO(AFTER_E0, LAST_1) | TO(AFTER_F0, LAST_2)),
    /* C0..CF */ 0, 0, LEAD(LAST_1), LEAD(LAST_1), X4(LEAD(LAST_1)), X4(LEAD(LAST_1)), X4(LEAD(LAST_1)),
    /* D0..DF */ X16(LEAD(LAST_1)),
    /* E0..EF */ LEAD(AFTER_E0), LEAD(LAST_2), LEAD(LAST_2), LEAD(LAST_2), X4(LEAD(LAST_2)), X4(LEAD(LAST_2)),
                 LEAD(LAST_2), LEAD(AFTER_ED), LEAD(LAST_2), LEAD(LAST_2),
    /* F0..FF */ LEAD(AFTER_F0), LEAD(LAST_3), LEAD(LAST_3), LEAD(LAST_3), LEAD(AFTER_F4), 0, 0, 0, X4(0), X4(0),
};

#undef TO
#undef X4
#undef X16
#undef ASCII
#undef TAIL
#undef LEAD

/* One byte after the other, words of ASCII at once. */
static inline uint32_t picows_utf8_bytewise(uint32_t state, const uint8_t *p, size_t n)
{
    while (n) {
        size_t step = n < 8 ? n : 8;
        if (step == 8 && state == PICOWS_UTF8_ACCEPT) {
            uint64_t word;
            memcpy(&word, p, sizeof word);
            if (!(word & UINT64_C(0x8080808080808080))) {
                p += 8;
                n -= 8;
                continue;
            }
        }
        n -= step;
        while (step--)
            state = picows_utf8_rows[*p++] >> state & 63;
    }
    return state;
}

#if defined(__GNUC__)

/* Whether a byte is wrong depends on the three in front of it only, so 16 bytes are compared with their neighbours at
 * once. In the comparisons 80..FF are negative: 80..BF, which go on with a character, are the bytes below C0. */
typedef int8_t picows_utf8_lane __attribute__((vector_size(16)));
typedef uint8_t picows_utf8_bytes __attribute__((vector_size(16)));
typedef uint64_t picows_utf8_words __attribute__((vector_size(16)));

static inline picows_utf8_lane picows_utf8_load(const uint8_t *p)
{
    picows_utf8_lane lane;
    memcpy(&lane, p, sizeof lane);
    return lane;
}

static inline int picows_utf8_any(picows_utf8_lane lane)
{
    const picows_utf8_words words = (picows_utf8_words)lane;
    return (words[0] | words[1]) != 0;
}

static inline int picows_utf8_ascii(picows_utf8_lane lane)
{
    const picows_utf8_words words = (picows_utf8_words)lane;
    return !((words[0] | words[1]) & UINT64_C(0x8080808080808080));
}

#define BYTE(value) ((int8_t)((value) - 0x100))

/* Not zero where one of the 16 bytes at p is wrong. */
static inline picows_utf8_lane picows_utf8_errors(const uint8_t *p)
{
    const picows_utf8_lane byte = picows_utf8_load(p), before = picows_utf8_load(p - 1);
    const picows_utf8_bytes before1 = (picows_utf8_bytes)before;
    const picows_utf8_bytes before2 = (picows_utf8_bytes)picows_utf8_load(p - 2);
    const picows_utf8_bytes before3 = (picows_utf8_bytes)picows_utf8_load(p - 3);
    const picows_utf8_lane due = (before1 >= 0xC0) | (before2 >= 0xE0) | (before3 >= 0xF0);

    return (due ^ (byte < BYTE(0xC0)))
        | ((byte & BYTE(0xFE)) == BYTE(0xC0)) | ((picows_utf8_bytes)byte >= 0xF5)
        | ((before == BYTE(0xE0)) & (byte < BYTE(0xA0))) | ((before == BYTE(0xED)) & (byte >= BYTE(0xA0)))
        | ((before == BYTE(0xF0)) & (byte < BYTE(0x90))) | ((before == BYTE(0xF4)) & (byte >= BYTE(0x90)));
}

#undef BYTE

/* Whether one of the 64 bytes at p is wrong. */
static inline int picows_utf8_wrong(const uint8_t *p)
{
    const picows_utf8_lane all =
        picows_utf8_load(p) | picows_utf8_load(p + 16) | picows_utf8_load(p + 32) | picows_utf8_load(p + 48);
    if (picows_utf8_ascii(all))
        return p[-1] >= 0xC0 || p[-2] >= 0xE0 || p[-3] >= 0xF0;
    return picows_utf8_any(picows_utf8_errors(p) | picows_utf8_errors(p + 16)
        | picows_utf8_errors(p + 32) | picows_utf8_errors(p + 48));
}

/* At least 32 bytes. Out of line: its callers are hot, and seldom come here. */
static __attribute__((noinline)) uint32_t picows_utf8_long(uint32_t state, const uint8_t *p, size_t n)
{
    const uint8_t *const end = p + n;

    /* A character begun in an earlier piece ends within three bytes. All others are looked at without a state. */
    if (state == PICOWS_UTF8_ACCEPT && picows_utf8_ascii(picows_utf8_load(p))) {
        p += 16;
    } else {
        state = picows_utf8_bytewise(state, p, 3);
        if (state == PICOWS_UTF8_REJECT)
            return state;
        p += 3;
    }

    /* The last block, and the last lane, may overlap the one before. */
    if (n >= 3 + 64) {
        for (; p < end; p += 64) {
            if (end - p < 64)
                p = end - 64;
            if (picows_utf8_wrong(p))
                return PICOWS_UTF8_REJECT;
        }
    } else {
        for (; p < end; p += 16) {
            if (end - p < 16)
                p = end - 16;
            if (picows_utf8_any(picows_utf8_errors(p)))
                return PICOWS_UTF8_REJECT;
        }
    }

    /* The last character may be incomplete. It begins in the last three bytes then. */
    for (size_t i = 1; i <= 3; i++)
        if (*(end - i) >= 0xC0)
            return picows_utf8_bytewise(PICOWS_UTF8_ACCEPT, end - i, i);
    return PICOWS_UTF8_ACCEPT;
}

#endif

/* The state after the n bytes at p, begun in `state`. */
static inline uint32_t picows_utf8(uint32_t state, const uint8_t *p, size_t n)
{
#if defined(__GNUC__)
    if (n >= 32)
        return picows_utf8_long(state, p, n);
#endif
    return picows_utf8_bytewise(state, p, n);
}

#endif
