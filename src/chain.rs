//! How errors are shown to people: with all their causes, on one line.

use std::error::Error;
use std::fmt;

/// Shows an error and its sources, from the outermost in.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'e>(pub &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            // Control characters in a foreign message must not forge log lines.
            let message = error.to_string().replace(char::is_control, " ");
            write!(f, ": {message}")?;
            source = error.source();
        }
        Ok(())
    }
}
