//! What an HTTP/2 server's first frame says of its windows (RFC 9113 §3.4 and §6.5.2).
//!
//! For the connections to backends: the library takes the SETTINGS in and does not tell what they were. It checks nothing;
//! what breaks the rules ends the connection there.

/// The window of a stream where nothing is said, in bytes.
const UNSTATED: usize = 65_535;
/// Length, type, flags and stream of a frame.
const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// The bytes that a server takes of each stream before it says more, once its first frame is whole; `None` until then.
pub fn initial_window(sent: &[u8]) -> Option<usize> {
    let &[high, middle, low, kind, ..] = sent.get(..HEAD)? else {
        return None;
    };
    if kind != SETTINGS {
        return Some(UNSTATED);
    }
    let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
    let settings = sent.get(HEAD..)?.get(..length)?;
    let mut windows = settings.chunks_exact(6).filter_map(|setting| {
        let value = setting.strip_prefix(&INITIAL_WINDOW_SIZE)?;
        let value = u32::from_be_bytes(value.try_into().ok()?);
        usize::try_from(value).ok()
    });
    // Of a setting that stands twice the last one counts.
    Some(windows.next_back().unwrap_or(UNSTATED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, settings: &[(u16, u32)]) -> Vec<u8> {
        let length = u8::try_from(settings.len() * 6).expect("a short frame");
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        for (name, value) in settings {
            bytes.extend(name.to_be_bytes());
            bytes.extend(value.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn the_window_is_the_last_that_is_stated() {
        for (settings, window) in [
            (&[][..], UNSTATED),
            (&[(3, 100)], UNSTATED),
            (&[(3, 100), (4, 1000)], 1000),
            (&[(4, 1000), (4, 0), (5, 7)], 0),
        ] {
            assert_eq!(initial_window(&frame(4, settings)), Some(window));
        }
        assert_eq!(initial_window(&frame(6, &[(4, 1000)])), Some(UNSTATED));
    }

    #[test]
    fn a_frame_that_is_not_whole_says_nothing_yet() {
        let whole = frame(4, &[(3, 100), (4, 1000)]);
        for end in 0..whole.len() {
            assert_eq!(initial_window(&whole[..end]), None, "{end}");
        }
        let more = [whole, vec![0; 20]].concat();
        assert_eq!(initial_window(&more), Some(1000));
    }
}
