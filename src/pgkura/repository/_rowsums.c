/* Sums of rows, with the processor's own AES: the compiled form of rowarrays.ArrayAdder, which gives the same sums
 * with arrays. docs/decisions/0007-row-hashes-in-bulk.md says what is computed.
 *
 * Nothing is read beyond a buffer, whatever lengths are given. What a call adds is counted when it ends, under the
 * interpreter's lock; the keys never change after they were made.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_rowsums_aes.h"

#ifdef HAVE_AES

enum { QUEUE = 8 }; /* digests that wait to be encrypted at a time */

typedef struct {
    uint64_t rows, low, high, over; /* of 192 bits: no number of rows makes them wrap */
} Sum;

typedef struct {
    const Secret *secret;
    Sum sum;
    int waiting;
    Block queue[QUEUE];
} Work;

static inline void
add_sum(Sum *into, Sum more)
{
    uint64_t low = into->low + more.low, carry = low < more.low;
    uint64_t high = into->high + more.high, wrapped = high < more.high;

    into->low = low;
    into->high = high + carry;
    into->over += more.over + wrapped + (into->high < carry);
    into->rows += more.rows;
}

FAST static void
settle(Work *work)
{
    const Block *keys = work->secret->outer;
    Block blocks[QUEUE];

    for (int n = 0; n < QUEUE; n++) {
        blocks[n] = first(n < work->waiting ? work->queue[n] : keys[0], keys);
    }
    encrypt(blocks, QUEUE, keys);
    for (int n = 0; n < work->waiting; n++) {
        uint64_t parts[2];
        memcpy(parts, blocks + n, sizeof parts);
        add_sum(&work->sum, (Sum){.rows = 1, .low = parts[0], .high = parts[1]});
    }
    work->waiting = 0;
}

FAST static inline void
add_digest(Work *work, Block digest)
{
    work->queue[work->waiting++] = digest;
    if (work->waiting == QUEUE) {
        settle(work);
    }
}

/* Four blocks of a row; `kept` says which bytes count, NULL = all. */
FAST static inline Block
add_group(const Secret *secret, const unsigned char *from, const unsigned char *kept, size_t place)
{
    Block blocks[GROUP];

#pragma GCC unroll 4
    for (int n = 0; n < GROUP; n++) {
        Block block = load(from + n * BLOCK);
        if (kept != NULL) {
            block = both(block, load(kept + n * BLOCK));
        }
        blocks[n] = differ(block, secret->masks[place + (size_t)n]);
    }
    encrypt(blocks, GROUP, secret->inner);
    return differ(differ(blocks[0], blocks[1]), differ(blocks[2], blocks[3]));
}

/* A row of at most LONG bytes, behind which `left` - `length` bytes may be read. */
FAST static inline void
add_row(Work *work, const unsigned char *from, size_t length, size_t left)
{
    const Secret *secret = work->secret;
    const uint64_t said[2] = {length, 0};
    size_t place = 0, rest = length;
    Block digest = differ(load(said), secret->padding[(length + BLOCK - 1) / BLOCK]);

    for (; rest >= GROUP * BLOCK; rest -= GROUP * BLOCK) {
        digest = differ(digest, add_group(secret, from, NULL, place));
        from += GROUP * BLOCK;
        place += GROUP;
    }
    if (rest > 0) {
        unsigned char room[GROUP * BLOCK];
        if (left - (length - rest) < GROUP * BLOCK) {
            memset(room, 0, sizeof room);
            memcpy(room, from, rest);
            from = room;
        }
        digest = differ(digest, add_group(secret, from, secret->kept + GROUP * BLOCK - rest, place));
    }
    add_digest(work, digest);
}

/* Lines from `at` on, until one that is too long or not whole: where it begins. Where it ends, or NULL. */
FAST static const unsigned char *
add_lines(Work *work, const unsigned char *at, const unsigned char *stop, const unsigned char **end)
{
    *end = NULL;
    while (at < stop && (*end = memchr(at, '\n', (size_t)(stop - at))) != NULL && *end - at <= LONG) {
        add_row(work, at, (size_t)(*end - at), (size_t)(stop - at));
        at = *end + 1;
        *end = NULL;
    }
    settle(work);
    return at;
}

/* Rows until one that is too long, or all: how many. -1 when they are not as long as they are said to be. */
FAST static Py_ssize_t
add_rows(Work *work, const unsigned char *at, size_t left, const char *lengths, Py_ssize_t count, size_t *unread)
{
    Py_ssize_t done = 0;

    for (; done < count; done++) {
        uint64_t length;
        memcpy(&length, lengths + (size_t)done * sizeof length, sizeof length);
        if (length > left) { /* one that is negative, too */
            return -1;
        }
        if (length > LONG) {
            break;
        }
        add_row(work, at, (size_t)length, left);
        at += length;
        left -= (size_t)length;
    }
    settle(work);
    *unread = left;
    return done == count && left > 0 ? -1 : done;
}

FAST static void
add_digests(Work *work, const unsigned char *from, size_t count)
{
    for (; count > 0; count--, from += BLOCK) {
        add_digest(work, load(from));
    }
    settle(work);
}

/* What Python sees. */

typedef struct {
    PyObject_HEAD
    Secret *secret;
    Sum sum;
} Sums;

static int
refused(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return 0;
}

static PyObject *
sums_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    Py_buffer keys;

    if (!PyArg_ParseTuple(arguments, "y*", &keys)) {
        return NULL;
    }
    Sums *self = NULL;
    if (names != NULL && PyDict_Size(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "the keys have no name");
    }
    else if (!available()) {
        PyErr_SetString(PyExc_RuntimeError, "this processor has no instructions for AES");
    }
    else if (keys.len == KEYS || refused("keys of another size")) {
        self = (Sums *)PyType_GenericAlloc(type, 0);
    }
    if (self != NULL) {
        self->secret = aligned_alloc(64, (sizeof(Secret) + 63) / 64 * 64);
        if (self->secret != NULL) {
            make_secret(self->secret, keys.buf);
        }
        else {
            Py_DECREF(self);
            self = NULL;
            PyErr_NoMemory();
        }
    }
    PyBuffer_Release(&keys);
    return (PyObject *)self;
}

static void
sums_dealloc(PyObject *object)
{
    Sums *self = (Sums *)object;
    PyTypeObject *type = Py_TYPE(object);

    if (self->secret != NULL) {
        wipe(self->secret, sizeof *self->secret);
        free(self->secret);
    }
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *
sums_lines(PyObject *object, PyObject *arguments)
{
    Sums *self = (Sums *)object;
    Work work = {.secret = self->secret};
    Py_buffer text;
    Py_ssize_t start;
    PyObject *found = NULL;

    if (!PyArg_ParseTuple(arguments, "y*n", &text, &start)) {
        return NULL;
    }
    if ((start >= 0 && start <= text.len) || refused("a start beyond the text")) {
        const unsigned char *begin = text.buf, *at, *end;
        Py_BEGIN_ALLOW_THREADS
        at = add_lines(&work, begin + start, begin + text.len, &end);
        Py_END_ALLOW_THREADS
        add_sum(&self->sum, work.sum);
        found = Py_BuildValue("(nn)", (Py_ssize_t)(at - begin), end != NULL ? (Py_ssize_t)(end - begin) : -1);
    }
    PyBuffer_Release(&text);
    return found;
}

static PyObject *
add_lengths(Sums *self, const Py_buffer *rows, const Py_buffer *lengths, Py_ssize_t first, Py_ssize_t start)
{
    Work work = {.secret = self->secret};
    size_t unread = 0;

    if (lengths->ndim != 1 || lengths->itemsize != sizeof(int64_t)
        || lengths->format == NULL || strchr("lqLQ", lengths->format[0]) == NULL) {
        PyErr_SetString(PyExc_TypeError, "lengths are to be numbers of eight bytes");
        return NULL;
    }
    Py_ssize_t count = lengths->len / (Py_ssize_t)sizeof(int64_t);
    if ((first < 0 || first > count || start < 0 || start > rows->len) && !refused("a start beyond the rows")) {
        return NULL;
    }
    const char *sizes = (const char *)lengths->buf + (size_t)first * sizeof(int64_t);
    Py_BEGIN_ALLOW_THREADS
    count = add_rows(&work, (const unsigned char *)rows->buf + start, (size_t)(rows->len - start), sizes, count - first,
                     &unread);
    Py_END_ALLOW_THREADS
    if (count < 0 && !refused("rows are not as long as they are said to be")) {
        return NULL;
    }
    add_sum(&self->sum, work.sum);
    return Py_BuildValue("(nn)", first + count, rows->len - (Py_ssize_t)unread);
}

static PyObject *
sums_rows(PyObject *object, PyObject *arguments)
{
    Py_buffer rows, lengths;
    PyObject *numbers, *found = NULL;
    Py_ssize_t first, start;

    if (!PyArg_ParseTuple(arguments, "y*Onn", &rows, &numbers, &first, &start)) {
        return NULL;
    }
    if (PyObject_GetBuffer(numbers, &lengths, PyBUF_ND | PyBUF_FORMAT) == 0) {
        found = add_lengths((Sums *)object, &rows, &lengths, first, start);
        PyBuffer_Release(&lengths);
    }
    PyBuffer_Release(&rows);
    return found;
}

static PyObject *
sums_digests(PyObject *object, PyObject *digests)
{
    Sums *self = (Sums *)object;
    Work work = {.secret = self->secret};
    Py_buffer source;

    if (PyObject_GetBuffer(digests, &source, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int whole = source.len % BLOCK == 0 || refused("digests of another size");
    if (whole) {
        add_digests(&work, source.buf, (size_t)source.len / BLOCK);
        add_sum(&self->sum, work.sum);
    }
    PyBuffer_Release(&source);
    return whole ? Py_BuildValue("") : NULL;
}

static PyObject *
sums_total(PyObject *object, PyObject *nothing)
{
    const Sum *sum = &((Sums *)object)->sum;
    const uint64_t parts[3] = {sum->low, sum->high, sum->over};

    return Py_BuildValue("(Ky#)", (unsigned long long)sum->rows, (const char *)parts, (Py_ssize_t)sizeof parts);
}

static PyMethodDef sums_methods[] = {
    {"lines", sums_lines, METH_VARARGS,
     "lines(text, start) -> (where the first line begins that was not added, where it ends or -1)"},
    {"rows", sums_rows, METH_VARARGS,
     "rows(rows, lengths, first, start) -> (the number of the first row not added, where it begins). Raises ValueError."},
    {"digests", sums_digests, METH_O, "digests(digests, 16 bytes each). Raises ValueError."},
    {"total", sums_total, METH_NOARGS, "total() -> (rows, their sum, little-endian)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sums_slots[] = {
    {Py_tp_new, sums_new},
    {Py_tp_dealloc, sums_dealloc},
    {Py_tp_methods, sums_methods},
    {Py_tp_doc, "Sums(keys)"},
    {0, NULL},
};

static PyType_Spec sums_spec = {
    .name = "pgkura.repository._rowsums.Sums",
    .basicsize = sizeof(Sums),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sums_slots,
};

static int
fill(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&sums_spec);
    int failed = type == NULL || PyModule_AddObjectRef(module, "Sums", type) < 0;

    Py_XDECREF(type);
    return failed || PyModule_AddObjectRef(module, "available", available() ? Py_True : Py_False) < 0 ? -1 : 0;
}

#else

static int
fill(PyObject *module)
{
    return PyModule_AddObjectRef(module, "available", Py_False);
}

#endif

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_rowsums",
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__rowsums(void)
{
    return PyModuleDef_Init(&definition);
}
