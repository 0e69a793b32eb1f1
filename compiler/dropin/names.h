/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All functions that a libnvrtc of 12.0 to 12.9 or 13.0 to 13.5 exports, and the majors that have
 * them. The drop-in of a major exports the union of its releases: a client that is linked against
 * one of them finds all of its names. The version scripts are made from this table; a test
 * compares it with the newest wheels.
 */
#ifndef WARM_DROPIN_NAMES_H
#define WARM_DROPIN_NAMES_H

/* X(name, first major, last major) */
#define WARM_DROPIN_NAMES(X)                   \
	X(nvrtcVersion, 12, 13)                \
	X(nvrtcGetErrorString, 12, 13)         \
	X(nvrtcGetNumSupportedArchs, 12, 13)   \
	X(nvrtcGetSupportedArchs, 12, 13)      \
	X(nvrtcCreateProgram, 12, 13)          \
	X(nvrtcDestroyProgram, 12, 13)         \
	X(nvrtcCompileProgram, 12, 13)         \
	X(nvrtcAddNameExpression, 12, 13)      \
	X(nvrtcGetLoweredName, 12, 13)         \
	X(nvrtcGetProgramLogSize, 12, 13)      \
	X(nvrtcGetProgramLog, 12, 13)          \
	X(nvrtcGetPTXSize, 12, 13)             \
	X(nvrtcGetPTX, 12, 13)                 \
	X(nvrtcGetCUBINSize, 12, 13)           \
	X(nvrtcGetCUBIN, 12, 13)               \
	X(nvrtcGetLTOIRSize, 12, 13)           \
	X(nvrtcGetLTOIR, 12, 13)               \
	X(nvrtcGetOptiXIRSize, 12, 13)         \
	X(nvrtcGetOptiXIR, 12, 13)             \
	X(nvrtcGetNVVMSize, 12, 12)            \
	X(nvrtcGetNVVM, 12, 12)                \
	X(nvrtcGetTileIRSize, 13, 13)          \
	X(nvrtcGetTileIR, 13, 13)              \
	X(nvrtcGetPCHCreateStatus, 12, 13)     \
	X(nvrtcGetPCHHeapSizeRequired, 12, 13) \
	X(nvrtcGetPCHHeapSize, 12, 13)         \
	X(nvrtcSetPCHHeapSize, 12, 13)         \
	X(nvrtcSetFlowCallback, 12, 13)        \
	X(nvrtcGetBundledHeadersInfo, 13, 13)  \
	X(nvrtcInstallBundledHeaders, 13, 13)  \
	X(nvrtcRemoveBundledHeaders, 13, 13)   \
	X(__nvrtcCPEx, 12, 13)                 \
	X(__nvrtcNvvmHandle, 13, 13)

#endif
