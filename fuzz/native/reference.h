/* What the fuzzed code has to do, said a second time: byte by byte, by the words of the standards, with no table, vector
 * or automaton, and slow. Nothing here is shared with the code it judges. Values are worked out, not looked up: whether
 * bytes that are still missing can mend something is tried with all of them 00 and all of them FF.
 */
#ifndef PICOWS_REFERENCE_H
#define PICOWS_REFERENCE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Its branches are nothing to discover, and counting them costs more than all the rest. Those of text are counted: the
 * code under test has no branch for what a character is. */
#if defined(__clang__)
#define REFERENCE static __attribute__((no_sanitize("coverage"), noinline, unused))
#else
#define REFERENCE static inline
#endif

/* For targets in C; those in Cython use assert. */
#define REQUIRE(condition, sentence) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, sentence); \
            abort(); \
        } \
    } while (0)

/* Masking (RFC 6455 section 5.3). */

REFERENCE void reference_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4])
{
    for (size_t i = 0; i < n; i++)
        dst[i] = src[i] ^ key[i % 4];
}

REFERENCE int reference_is_masked(const uint8_t *a, const uint8_t *b, size_t n, const uint8_t key[4])
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != (b[i] ^ key[i % 4]))
            return 0;
    return 1;
}

/* UTF-8 (RFC 3629 section 3). Text is bad as soon as no byte that may follow can mend it. */

enum { REFERENCE_TEXT_WHOLE, REFERENCE_TEXT_BAD, REFERENCE_TEXT_UNFINISHED };

/* Is there a character with a number from `low` to `high`? */
static inline int reference_character_between(uint32_t low, uint32_t high)
{
    if (high > 0x10FFFF)
        high = 0x10FFFF;
    return low <= high && !(low >= 0xD800 && high <= 0xDFFF);
}

static inline int reference_text(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t value, least;
        size_t length;
        if (p[i] < 0x80) {
            i++;
            continue;
        } else if ((p[i] & 0xE0) == 0xC0) {
            length = 2;
            least = 0x80;
            value = p[i] & 0x1F;
        } else if ((p[i] & 0xF0) == 0xE0) {
            length = 3;
            least = 0x800;
            value = p[i] & 0x0F;
        } else if ((p[i] & 0xF8) == 0xF0) {
            length = 4;
            least = 0x10000;
            value = p[i] & 0x07;
        } else {
            return REFERENCE_TEXT_BAD;
        }
        for (size_t k = 1;; k++) {
            const unsigned missing = 6 * (unsigned)(length - k);
            const uint32_t low = value << missing;
            const uint32_t high = low | ((UINT32_C(1) << missing) - 1);
            if (!reference_character_between(low > least ? low : least, high))
                return REFERENCE_TEXT_BAD;
            if (k == length)
                break;
            if (i + k == n)
                return REFERENCE_TEXT_UNFINISHED;
            if ((p[i + k] & 0xC0) != 0x80)
                return REFERENCE_TEXT_BAD;
            value = value << 6 | (p[i + k] & 0x3F);
        }
        i += length;
    }
    return REFERENCE_TEXT_WHOLE;
}

/* Frames (RFC 6455 section 5.2). */

enum {
    REFERENCE_FRAME,
    REFERENCE_MORE,
    REFERENCE_RESERVED_OPCODE,
    REFERENCE_CONTROL_FRAGMENTED,
    REFERENCE_CONTROL_TOO_LONG,
    REFERENCE_MASK_MISSING,
    REFERENCE_MASK_UNEXPECTED,
    REFERENCE_LENGTH_NOT_MINIMAL,
    REFERENCE_LENGTH_TOP_BIT,
    REFERENCE_FRAME_TOO_BIG,
    REFERENCE_CLOSE_SIZE,
    REFERENCE_CLOSE_CODE,
    REFERENCE_CLOSE_REASON,
    REFERENCE_VERDICTS
};

struct reference_frame {
    size_t header_size; /* 0: not known yet */
    uint64_t size;      /* of the payload */
    uint8_t key[4];     /* zeros when frames come unmasked */
    uint8_t opcode, fin, rsv1, rsv2, rsv3;
};

REFERENCE int reference_is_control(int opcode)
{
    return opcode == 8 || opcode == 9 || opcode == 10;
}

/* A header of 14 bytes, of which the last may not belong to it. */
REFERENCE int reference_header(const uint8_t *p, int masked, uint64_t limit, struct reference_frame *frame)
{
    size_t width = 0;
    frame->fin = p[0] / 128;
    frame->rsv1 = p[0] / 64 % 2;
    frame->rsv2 = p[0] / 32 % 2;
    frame->rsv3 = p[0] / 16 % 2;
    frame->opcode = p[0] % 16;
    frame->size = p[1] % 128;
    if (frame->opcode != 0 && frame->opcode != 1 && frame->opcode != 2 && !reference_is_control(frame->opcode))
        return REFERENCE_RESERVED_OPCODE;
    if (reference_is_control(frame->opcode) && !frame->fin)
        return REFERENCE_CONTROL_FRAGMENTED;
    if (masked && p[1] < 128)
        return REFERENCE_MASK_MISSING;
    if (!masked && p[1] >= 128)
        return REFERENCE_MASK_UNEXPECTED;
    if (reference_is_control(frame->opcode) && frame->size > 125)
        return REFERENCE_CONTROL_TOO_LONG;
    if (frame->size == 126)
        width = 2;
    if (frame->size == 127)
        width = 8;
    if (width) {
        frame->size = 0;
        for (size_t i = 0; i < width; i++)
            frame->size = frame->size * 256 + p[2 + i];
        if (frame->size <= 125 || (width == 8 && frame->size <= 65535))
            return REFERENCE_LENGTH_NOT_MINIMAL;
        if (frame->size >= UINT64_C(0x8000000000000000))
            return REFERENCE_LENGTH_TOP_BIT;
    }
    if (frame->size > limit)
        return REFERENCE_FRAME_TOO_BIG;
    frame->header_size = 2 + width;
    memset(frame->key, 0, sizeof frame->key);
    if (masked) {
        memcpy(frame->key, p + frame->header_size, sizeof frame->key);
        frame->header_size += 4;
    }
    return REFERENCE_FRAME;
}

REFERENCE int reference_close_code_may_travel(unsigned code)
{
    switch (code) {
    case 1000: case 1001: case 1002: case 1003:
    case 1007: case 1008: case 1009: case 1010: case 1011: case 1012: case 1013: case 1014:
        return 1;
    default:
        return code >= 3000 && code < 5000;
    }
}

REFERENCE int reference_close(const uint8_t *p, size_t n)
{
    if (n == 0)
        return REFERENCE_FRAME;
    if (n == 1)
        return REFERENCE_CLOSE_SIZE;
    if (!reference_close_code_may_travel(p[0] * 256u + p[1]))
        return REFERENCE_CLOSE_CODE;
    return reference_text(p + 2, n - 2) == REFERENCE_TEXT_WHOLE ? REFERENCE_FRAME : REFERENCE_CLOSE_REASON;
}

/* What waits in the n bytes at p. */
REFERENCE int reference_look(const uint8_t *p, size_t n, int masked, uint64_t limit, struct reference_frame *frame)
{
    struct reference_frame other;
    uint8_t zeros[14], ones[14];
    const size_t got = n < 14 ? n : 14;
    const uint64_t half = SIZE_MAX / 2 - 14;
    if (limit > half)
        limit = half;
    memset(frame, 0, sizeof *frame);
    memset(&other, 0, sizeof other);
    memset(zeros, 0x00, sizeof zeros);
    memset(ones, 0xFF, sizeof ones);
    if (n) {
        memcpy(zeros, p, got);
        memcpy(ones, p, got);
    }
    const int verdict = reference_header(zeros, masked, limit, frame);
    const int with_ones = reference_header(ones, masked, limit, &other);
    if (verdict != with_ones || (verdict == REFERENCE_FRAME && n < frame->header_size)) {
        frame->header_size = 0;
        return REFERENCE_MORE;
    }
    if (verdict != REFERENCE_FRAME)
        return verdict;
    if (n - frame->header_size < frame->size)
        return REFERENCE_MORE;
    if (frame->opcode == 8) {
        uint8_t payload[125];
        reference_mask(payload, p + frame->header_size, (size_t)frame->size, frame->key);
        return reference_close(payload, (size_t)frame->size);
    }
    return REFERENCE_FRAME;
}

/* Field lines (RFC 9112 section 5; names: RFC 9110 section 5.6.2, values: section 5.5). */

struct reference_field {
    size_t name_size, value, value_size, size; /* `value` is where it begins */
};

REFERENCE int reference_in_name(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '!' || c == '#' || c == '$'
        || c == '%' || c == '&' || c == '\'' || c == '*' || c == '+' || c == '-' || c == '.' || c == '^' || c == '_'
        || c == '`' || c == '|' || c == '~';
}

/* Do the n bytes at p begin with a field line? */
REFERENCE int reference_read_field(const uint8_t *p, size_t n, struct reference_field *field)
{
    size_t end = 0, colon = 0;
    while (end + 1 < n && !(p[end] == '\r' && p[end + 1] == '\n'))
        end++;
    if (end + 1 >= n)
        return 0;
    while (colon < end && p[colon] != ':')
        colon++;
    if (colon == 0 || colon == end)
        return 0;
    for (size_t i = 0; i < colon; i++)
        if (!reference_in_name(p[i]))
            return 0;
    for (size_t i = colon + 1; i < end; i++)
        if (p[i] == 0x7F || (p[i] < 0x20 && p[i] != '\t'))
            return 0;
    field->name_size = colon;
    field->size = end + 2;
    field->value = colon + 1;
    field->value_size = end - field->value;
    while (field->value_size && (p[field->value] == ' ' || p[field->value] == '\t')) {
        field->value++;
        field->value_size--;
    }
    while (field->value_size && (p[field->value + field->value_size - 1] == ' ' || p[field->value + field->value_size - 1] == '\t'))
        field->value_size--;
    return 1;
}

#endif
