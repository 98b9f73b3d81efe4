//! Where the head of a request ends: at its first empty line, whichever way lines end (RFC 9112, section 2.2).

/// How far the head has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing of it: empty lines before it do not count.
    #[default]
    Awaited,
    /// A part of its first line.
    FirstLine,
    /// A part of another line.
    Line,
    /// A line has just ended.
    LineEnd,
    /// After that, a carriage return.
    Return,
}

impl Head {
    /// Takes bytes in, and tells how many of them belong to the head when it ends among them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            *self = match (*self, byte) {
                (Self::Awaited, b'\r' | b'\n') => Self::Awaited,
                (Self::FirstLine | Self::Line, b'\n') => Self::LineEnd,
                (Self::LineEnd, b'\r') => Self::Return,
                (Self::LineEnd | Self::Return, b'\n') => {
                    *self = Self::Awaited;
                    return Some(at + 1);
                }
                (Self::Awaited | Self::FirstLine, _) => Self::FirstLine,
                (Self::Line | Self::LineEnd | Self::Return, _) => Self::Line,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_first_empty_line_however_it_is_cut() {
        for (bytes, end) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", Some(27)),
            ("GET / HTTP/1.1\nHost: x\n\nGET", Some(24)),
            ("GET / HTTP/1.1\nHost: x\r\n\nbody", Some(25)),
            ("\r\n\r\n\nGET / HTTP/1.1\r\n\r\n", Some(23)),
            ("GET / HTTP/1.1\r\nHost: x\r\n", None),
            ("GET / HTTP/1.1\r\n\r \n", None),
            ("\r\n\r\n", None),
            ("", None),
        ] {
            for cut in 0..=bytes.len() {
                let (one, other) = bytes.as_bytes().split_at(cut);
                let mut head = Head::default();
                let found = head.take(one).or_else(|| head.take(other).map(|at| cut + at));
                assert_eq!(found, end, "{bytes:?} cut at {cut}");
            }
        }
    }
}
