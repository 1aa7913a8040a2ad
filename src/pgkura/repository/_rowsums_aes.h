/* AES-128 of several blocks at a time, with the processor's own instructions, where compiler and processor have them:
 * HAVE_AES, and available() when it runs.
 */
#ifndef PGKURA_ROWSUMS_AES_H
#define PGKURA_ROWSUMS_AES_H

#include <stddef.h>
#include <string.h>

enum { BLOCK = 16, KEY = 16, ROUNDS = 10 };

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

#endif

#endif
