//! Standard output whose reader may go at any time (`synod status | head -3`):
//! the program then ends in order, with everything cleaned up, and says nothing.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What unwinds when nobody reads any more.
struct NobodyReads;

/// Prints, as the standard library's macro of this name.
macro_rules! print {
    ($($argument:tt)*) => { $crate::output::write(format_args!($($argument)*)) };
}

/// Prints a line, as the standard library's macro of this name.
macro_rules! println {
    () => { $crate::output::write(format_args!("\n")) };
    ($($argument:tt)*) => {{
        $crate::output::write(format_args!($($argument)*));
        $crate::output::write(format_args!("\n"));
    }};
}

/// Writes to standard output.
pub fn write(text: Arguments<'_>) {
    match std::io::stdout().lock().write_fmt(text) {
        Ok(()) => {}
        // Unlike a panic this prints nothing; what was started is still ended.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => resume_unwind(Box::new(NobodyReads)),
        Err(error) => panic!("cannot write to standard output: {error}"),
    }
}

/// So many of these, such as `1 node` or `2 nodes`.
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// Runs the program; none if nobody reads what it prints.
pub fn while_read<T>(program: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(program)) {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<NobodyReads>() => None,
        Err(cause) => resume_unwind(cause),
    }
}
