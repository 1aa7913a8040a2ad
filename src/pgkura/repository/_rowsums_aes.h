/* The ciphers of row sums, and their keys: AES-128 with the processor's own instructions, where the compiler knows them
 * (HAVE_AES) and the processor has them (available()).
 */
#ifndef PGKURA_ROWSUMS_AES_H
#define PGKURA_ROWSUMS_AES_H

#include <stddef.h>
#include <string.h>

enum {
    BLOCK = 16,
    GROUP = 4,   /* blocks of a row that are worked on at a time */
    LONG = 4096, /* longer rows are digested by who calls */
    PLACES = LONG / BLOCK,
    ROUNDS = 10,
    KEY = 16,
    MASKS = 2 * KEY + 32, /* behind E, F and the key for longer rows */
    KEYS = MASKS + LONG,
};

/* One block, on processors with instructions for AES. `first`, `step` and `last` encrypt together: they differ in
 * whether a round's key is added at its end or at its beginning. */
#if defined(__GNUC__) && defined(__x86_64__)
#define HAVE_AES 1
#include <immintrin.h>

#define FAST __attribute__((target("aes,sse4.1")))
typedef __m128i Block;

static int
available(void)
{
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1");
}

FAST static inline Block load(const void *from) { return _mm_loadu_si128(from); }
FAST static inline Block both(Block a, Block b) { return _mm_and_si128(a, b); }
FAST static inline Block differ(Block a, Block b) { return _mm_xor_si128(a, b); }
FAST static inline Block first(Block b, const Block *k) { return _mm_xor_si128(b, k[0]); }
FAST static inline Block step(Block b, const Block *k) { return _mm_aesenc_si128(b, k[1]); }
FAST static inline Block last(Block b, const Block *k) { return _mm_aesenclast_si128(b, k[1]); }

#elif defined(__GNUC__) && defined(__AARCH64EL__) && (defined(__ARM_FEATURE_AES) || !defined(__clang__))
#define HAVE_AES 1
#include <arm_neon.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif

#define FAST __attribute__((target("+crypto")))
typedef uint8x16_t Block;

static int
available(void)
{
#ifdef __linux__
    return (getauxval(AT_HWCAP) & 1 << 3) != 0; /* HWCAP_AES */
#else
    return 1; /* the compiler was told so */
#endif
}

FAST static inline Block load(const void *from) { return vld1q_u8(from); }
FAST static inline Block both(Block a, Block b) { return vandq_u8(a, b); }
FAST static inline Block differ(Block a, Block b) { return veorq_u8(a, b); }
FAST static inline Block first(Block b, const Block *k) { (void)k; return b; }
FAST static inline Block step(Block b, const Block *k) { return vaesmcq_u8(vaeseq_u8(b, k[0])); }
FAST static inline Block last(Block b, const Block *k) { return veorq_u8(vaeseq_u8(b, k[0]), k[1]); }

#endif

#ifdef HAVE_AES

typedef struct {
    Block inner[ROUNDS + 1], outer[ROUNDS + 1];
    Block masks[PLACES];       /* as they are added to a row's blocks: with what `first` adds */
    Block padding[PLACES + 1]; /* for each number of blocks: what the zeros behind them add, up to the width */
    unsigned char kept[2 * GROUP * BLOCK]; /* ones, then zeros: which bytes of the last group are the row's */
} Secret;

FAST static inline void
encrypt(Block *blocks, int count, const Block *keys)
{
#pragma GCC unroll 10
    for (int round = 0; round < ROUNDS - 1; round++) {
#pragma GCC unroll 8
        for (int n = 0; n < count; n++) {
            blocks[n] = step(blocks[n], keys + round);
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < count; n++) {
        blocks[n] = last(blocks[n], keys + ROUNDS - 1);
    }
}

/* What is freed afterwards, too: the compiler must not leave it out. */
static void
wipe(void *secret, size_t size)
{
    memset(secret, 0, size);
    __asm__ volatile("" : : "r"(secret) : "memory");
}

/* The key of each round. The S-box is that of the last round, which adds nothing to four equal columns but its key. */
FAST static void
expand(Block *keys, const unsigned char *key)
{
    unsigned char words[(ROUNDS + 1) * BLOCK], same[BLOCK];
    const Block zeros[2] = {differ(load(key), load(key)), differ(load(key), load(key))};

    memcpy(words, key, KEY);
    for (unsigned at = KEY, constant = 1; at < sizeof words; at += 4) {
        unsigned char word[4];
        memcpy(word, words + at - 4, 4);
        if (at % KEY == 0) {
            for (int n = 0; n < BLOCK; n++) {
                same[n] = word[(n + 1) % 4];
            }
            Block found = last(load(same), zeros);
            memcpy(word, &found, 4);
            word[0] ^= (unsigned char)constant;
            constant = constant << 1 ^ (constant >> 7) * 0x11b;
        }
        for (int n = 0; n < 4; n++) {
            words[at + (unsigned)n] = words[at + (unsigned)n - KEY] ^ word[n];
        }
    }
    memcpy(keys, words, sizeof words);
    wipe(words, sizeof words);
    wipe(same, sizeof same);
}

/* The blocks at which a row of so many is gathered: eighths of the power of two above. */
static size_t
width_of(size_t blocks)
{
    size_t unit = 1;

    while (blocks > 8 * unit) {
        unit *= 2;
    }
    return blocks == 0 ? 1 : (blocks + unit - 1) / unit * unit;
}

/* `keys` of KEYS bytes. */
FAST static void
make_secret(Secret *secret, const unsigned char *keys)
{
    Block zeros[PLACES + 1]; /* what so many zero blocks add */

    expand(secret->inner, keys);
    expand(secret->outer, keys + KEY);
    zeros[0] = differ(load(keys), load(keys));
    for (size_t n = 0; n < PLACES; n++) {
        Block mask = first(load(keys + MASKS + n * BLOCK), secret->inner);
        secret->masks[n] = mask;
        encrypt(&mask, 1, secret->inner);
        zeros[n + 1] = differ(zeros[n], mask);
    }
    for (size_t n = 0; n <= PLACES; n++) {
        size_t worked = (n + GROUP - 1) / GROUP * GROUP;
        secret->padding[n] = differ(zeros[worked], zeros[width_of(n)]);
    }
    wipe(zeros, sizeof zeros);
    memset(secret->kept, 0xff, sizeof secret->kept / 2);
    memset(secret->kept + sizeof secret->kept / 2, 0, sizeof secret->kept / 2);
}

#endif

#endif
