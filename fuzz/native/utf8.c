/* Input: 3 bytes, each the size of a piece less 1, taken in turn, and text. */
#include "_native/utf8.h"
#include "reference.h"

enum { OPTIONS = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < OPTIONS)
        return 0;
    const uint8_t *const text = data + OPTIONS;
    const size_t n = size - OPTIONS;
    /* Of exactly its size, so that the sanitizer sees what is read around it. */
    uint8_t *const block = malloc(n ? n : 1);
    REQUIRE(block, "no memory");
    if (n)
        memcpy(block, text, n);
    const uint32_t whole = picows_utf8(PICOWS_UTF8_ACCEPT, block, n);
    const int expected = reference_text(text, n);

    REQUIRE((whole == PICOWS_UTF8_ACCEPT) == (expected == REFERENCE_TEXT_WHOLE), "whole text is judged wrongly");
    REQUIRE((whole == PICOWS_UTF8_REJECT) == (expected == REFERENCE_TEXT_BAD), "bad text is judged wrongly");
    REQUIRE(picows_utf8_bytewise(PICOWS_UTF8_ACCEPT, text, n) == whole, "byte by byte the verdict is another one");

    uint32_t state = PICOWS_UTF8_ACCEPT;
    for (size_t start = 0, turn = 0; start < n; turn++) {
        size_t step = data[turn % OPTIONS] + (size_t)1;
        if (step > n - start)
            step = n - start;
        /* Each piece ends where the block does. */
        memcpy(block + n - step, text + start, step);
        state = picows_utf8(state, block + n - step, step);
        start += step;
    }
    REQUIRE(state == whole, "in pieces the verdict is another one");
    free(block);
    return 0;
}
