/* Runs a target that is written in Cython: FUZZ_TARGET, a module with the C function `check`, which raises what it finds.
 * The interpreter is started once; inputs are checked with the GIL held. */
#include <Python.h>

static int (*check)(const uint8_t *, size_t);

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(void)
{
    PyErr_Print();
    fflush(NULL);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyConfig config;
    (void)argc;
    (void)argv;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* they are the fuzzer's */
    /* The environment of that interpreter is ours. */
    PyStatus status = PyConfig_SetBytesString(&config, &config.program_name, FUZZ_PYTHON);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
    PyConfig_Clear(&config);

    PyObject *module = PyImport_ImportModule(FUZZ_TARGET);
    PyObject *functions = module ? PyObject_GetAttrString(module, "__pyx_capi__") : NULL;
    PyObject *capsule = functions ? PyDict_GetItemString(functions, "check") : NULL;
    if (!capsule)
        fail();
    *(void **)&check = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
    if (!check)
        fail();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (check(data, size) < 0)
        fail();
    return 0;
}
