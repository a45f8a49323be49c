/* Size classes.
 *
 * The sizes are made by a rule, so that they need not be believed: every multiple of 8 from 16 to 128; from there on the next
 * class is the largest size (a multiple of 16; above 1024 of 128) that wastes at most 12.5 % of its slot for the
 * smallest request it serves, with powers of two always among them; 240 and 384 + 416 use up the remaining numbers. A size that is not a multiple of
 * 16 serves only requests between itself and the 8 bytes below, so a request for a multiple of 16 always gets a slot that is one, and with it
 * an address that is one.
 *
 * The pages of a span: the fewest that hold 8 objects (above 8 KiB: 3) and leave at most 3 % (6.25 %) at the end, or the
 * best there is in up to 8 (20) pages. tests/gc_class.c checks both rules and the reciprocals over every offset. */
#include "gc/heap.h"

/*    bytes, pages of a span */
#define CLASSES(X) \
    X(16, 1) X(24, 1) X(32, 1) X(40, 1) X(48, 1) X(56, 1) X(64, 1) X(72, 1) X(80, 1) X(88, 1) X(96, 1) X(104, 1) \
    X(112, 1) X(120, 1) X(128, 1) X(144, 1) X(160, 1) X(176, 1) X(192, 1) X(208, 1) X(224, 1) X(240, 1) X(256, 1) \
    X(288, 1) X(320, 1) X(352, 1) X(384, 1) X(416, 2) X(448, 1) X(512, 1) X(576, 1) X(640, 2) X(704, 2) X(800, 1) \
    X(896, 1) X(1024, 1) X(1152, 2) X(1280, 3) X(1408, 3) X(1536, 3) X(1664, 5) X(1792, 2) X(2048, 2) X(2304, 4) \
    X(2560, 5) X(2816, 6) X(3200, 4) X(3584, 4) X(4096, 4) X(4608, 8) X(5120, 5) X(5760, 8) X(6528, 8) X(7168, 7) \
    X(8192, 8) X(9216, 6) X(10240, 4) X(11648, 6) X(13056, 5) X(14336, 7) X(16384, 6) X(18432, 7) X(20480, 8) \
    X(23040, 9) X(26112, 10) X(28672, 11) X(32768, 12)

/* i = offset * magic >> 32 is offset / size for every offset in a span; for large objects (class 127) it is always 0. */
#define INFO(s, p) { (s), (uint32_t)((0x100000000ull + (s) - 1) / (s)), (p) * HEAP_PAGE / (s), (p), ((p) * HEAP_PAGE / (s) + 63) / 64 },
#define SIZE(s, p) (s),

const struct class_info class_info[128] = {
    { 0, 0, 0, 0, 0 },
    CLASSES(INFO)
    [CLASS_LARGE] = { 0, 0, 1, 0, 1 },
};
const uint16_t gc_class_size[GC_CLASSES] = { 0, CLASSES(SIZE) };

const uint8_t gc_class_small[1024 / 8 + 1] = {
    1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21, 22, 22,
    23, 23, 24, 24, 24, 24, 25, 25, 25, 25, 26, 26, 26, 26, 27, 27, 27, 27, 28, 28, 28, 28, 29, 29, 29, 29, 30, 30,
    30, 30, 30, 30, 30, 30, 31, 31, 31, 31, 31, 31, 31, 31, 32, 32, 32, 32, 32, 32, 32, 32, 33, 33, 33, 33, 33, 33,
    33, 33, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 35, 35, 35, 35, 35, 35, 35, 35, 35, 35, 35, 35, 36, 36,
    36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36, 36,
};

const uint8_t gc_class_large[(GC_MAX_SMALL - 1024) / 128 + 1] = {
    36, 37, 38, 39, 40, 41, 42, 43, 43, 44, 44, 45, 45, 46, 46, 47, 47, 47, 48, 48, 48, 49, 49, 49, 49, 50, 50, 50,
    50, 51, 51, 51, 51, 52, 52, 52, 52, 52, 53, 53, 53, 53, 53, 53, 54, 54, 54, 54, 54, 55, 55, 55, 55, 55, 55, 55,
    55, 56, 56, 56, 56, 56, 56, 56, 56, 57, 57, 57, 57, 57, 57, 57, 57, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58, 58,
    59, 59, 59, 59, 59, 59, 59, 59, 59, 59, 59, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 61, 61, 61, 61, 61, 61, 61,
    61, 61, 61, 61, 61, 61, 61, 61, 61, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 62, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65, 65,
    65, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 66, 67, 67, 67, 67, 67, 67, 67,
    67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67, 67,
};
