//! Where the head of a request ends: at its first empty line, whichever way lines end (RFC 9112, section 2.2).

/// What has been seen of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    place: Place,
    /// The length of its first line so far, in bytes.
    pub(super) first_line: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Before it; empty lines there do not count.
    #[default]
    Before,
    FirstLine,
    Line,
    /// Behind a line.
    LineEnd,
    /// Behind a carriage return that is behind a line.
    Return,
}

impl Head {
    /// Takes bytes in, and tells how many of them belong to the head when it ends among them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            self.place = match (self.place, byte) {
                (Place::Before, b'\r' | b'\n') => Place::Before,
                (Place::Before, _) => {
                    self.first_line = 1;
                    Place::FirstLine
                }
                (Place::FirstLine | Place::Line, b'\n') => Place::LineEnd,
                (Place::FirstLine, _) => {
                    self.first_line += 1;
                    Place::FirstLine
                }
                (Place::LineEnd, b'\r') => Place::Return,
                (Place::LineEnd | Place::Return, b'\n') => {
                    self.place = Place::Before;
                    return Some(at + 1);
                }
                (Place::Line | Place::LineEnd | Place::Return, _) => Place::Line,
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
        for (bytes, end, first_line) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", Some(27), 15),
            ("GET / HTTP/1.1\nHost: x\n\nGET", Some(24), 14),
            ("GET / HTTP/1.1\nHost: x\r\n\nbody", Some(25), 14),
            ("\r\n\r\n\nGET / HTTP/1.1\r\n\r\n", Some(23), 15),
            ("GET / HTTP/1.1\r\nHost: x\r\n", None, 15),
            ("GET / HTTP/1.1\r\n\r \n", None, 15),
            ("GET /", None, 5),
            ("\r\n\r\n", None, 0),
            ("", None, 0),
        ] {
            for cut in 0..=bytes.len() {
                let (one, other) = bytes.as_bytes().split_at(cut);
                let mut head = Head::default();
                let found = head.take(one).or_else(|| head.take(other).map(|at| cut + at));
                assert_eq!(found, end, "{bytes:?} cut at {cut}");
                assert!(found.is_some() || head.first_line == first_line, "{bytes:?} cut at {cut}");
            }
        }
    }
}
