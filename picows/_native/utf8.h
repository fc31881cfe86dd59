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

/* The state after the n bytes at p, begun in `state`. */
static inline uint32_t picows_utf8(uint32_t state, const uint8_t *p, size_t n)
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

#endif
