//! The native wrapper: a heap type with a vectorcall slot around one callable.
//!
//! To the application it is the original: attributes, class, equality, hash, pickle and repr are the original's. A
//! call costs 20 to 40 ns more and adds no Python frame.

mod body;
mod call;
mod coroutine;
mod function;

pub use body::wrap_body;
pub use call::{Call, CallHook, Fault, HookResult};
pub use coroutine::{AsyncHook, Flight, wrap_async};
pub use function::{Behaviour, init, is_wrapper, original, wrap};
