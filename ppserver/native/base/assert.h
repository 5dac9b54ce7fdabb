/* PP_ASSERT: debug and test builds. PP_CHECK: always, where going on would corrupt memory. */
#ifndef PP_BASE_ASSERT_H
#define PP_BASE_ASSERT_H

_Noreturn void pp_assert_fail(const char *what, const char *file, int line);

#define PP_CHECK(cond) \
    (__builtin_expect(!!(cond), 1) ? (void)0 : pp_assert_fail(#cond, __FILE__, __LINE__))
#if defined(PP_DEBUG) && PP_DEBUG
#define PP_ASSERT(cond) PP_CHECK(cond)
#else
#define PP_ASSERT(cond) ((void)0)
#endif

#define PP_LIKELY(x) __builtin_expect(!!(x), 1)
#define PP_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PP_FALLTHROUGH __attribute__((fallthrough))
#define PP_MUST_USE __attribute__((warn_unused_result))
#define PP_NOINLINE __attribute__((noinline))

#endif
