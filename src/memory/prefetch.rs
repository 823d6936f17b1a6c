//! Memory that will be needed soon.

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Lets the processor fetch `value` into its cache while other work goes on. A hint, and nothing where
/// there is no instruction for it.
pub fn prefetch<T: ?Sized>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for start in (0..size_of_val(value)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = std::ptr::from_ref(value).cast::<i8>().wrapping_add(start);
        // SAFETY: the instruction reads nothing and cannot fail, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, LINE);
}
