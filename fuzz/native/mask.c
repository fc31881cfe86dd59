/* Input: 4 bytes of mask key, 1 of alignments, and the bytes to mask. */
#include "_native/mask.h"
#include "reference.h"

enum { OPTIONS = 5, GUARD = 0xA5 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A block that ends where its n bytes do, so that the sanitizer sees what lies behind them; they begin at `offset`. */
static uint8_t *block(size_t offset, size_t n)
{
    uint8_t *memory = malloc(offset + n ? offset + n : 1);
    REQUIRE(memory, "no memory");
    memset(memory, GUARD, offset);
    return memory;
}

static void require_guard(const uint8_t *memory, size_t offset)
{
    for (size_t i = 0; i < offset; i++)
        REQUIRE(memory[i] == GUARD, "a byte in front of the target was written");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < OPTIONS)
        return 0;
    const size_t n = size - OPTIONS, to = data[4] % 16, from = data[4] / 16;
    uint8_t *source = block(from, n), *target = block(to, n);
    uint32_t key;

    memcpy(&key, data, 4);
    if (n)
        memcpy(source + from, data + OPTIONS, n);
    picows_mask(target + to, source + from, n, key);
    REQUIRE(reference_is_masked(target + to, data + OPTIONS, n, data), "masked wrongly from one block to another");
    REQUIRE(!memcmp(source + from, data + OPTIONS, n), "the source was changed");
    require_guard(target, to);

    picows_mask(source + from, source + from, n, key);
    REQUIRE(!memcmp(source + from, target + to, n), "masked wrongly in place");
    require_guard(source, from);

    free(source);
    free(target);
    return 0;
}
