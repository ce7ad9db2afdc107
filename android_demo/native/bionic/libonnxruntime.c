/* As libc.c: the one name of ONNX Runtime that is linked, without the version that its own library gives it. */
void OrtGetApiBase(void);
void OrtGetApiBase(void) {}
