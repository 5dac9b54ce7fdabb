/* Shared by the bridge's files: per-module state, the Core object, and the seams between them. */
#ifndef PP_BRIDGE_BRIDGE_H
#define PP_BRIDGE_BRIDGE_H
/* placeholder until module.c lands */
#endif
