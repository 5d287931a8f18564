//! The trace that a request belongs to (W3C Trace Context, level 1 §3.2).

use http::header::HeaderValue;

use crate::crypto::rng::HexId;

/// Trace and span identity, lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// `00-<32 hex>-<16 hex>-<2 hex>`; the span is ours.
    value: [u8; 55],
}

impl TraceContext {
    /// Continues an incoming `traceparent` with a span of our own, or begins a trace when there is none to trust.
    pub fn new(incoming: Option<&HeaderValue>, trace: &HexId, span: u64) -> Self {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (head, flags) = value.split_at_mut(53);
        head[3..35].copy_from_slice(trace.as_bytes());
        head[36..52].copy_from_slice(&HexId::of(u128::from(span)).as_bytes()[16..]);
        if let Some(theirs) = incoming.map(HeaderValue::as_bytes).filter(|v| is_valid(v)) {
            head[3..35].copy_from_slice(&theirs[3..35]);
            flags.copy_from_slice(&theirs[53..55]);
        }
        Self { value }
    }

    /// The header value for the backend.
    pub fn traceparent(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.value)
            .expect("hexadecimal digits and dashes are a valid value")
    }

    /// The trace's 32 digits.
    pub fn trace_id(&self) -> &[u8; 32] {
        self.value[3..].first_chunk().unwrap_or(&[b'0'; 32])
    }

    /// Our span's 16 digits.
    pub fn span_id(&self) -> &[u8; 16] {
        self.value[36..].first_chunk().unwrap_or(&[b'0'; 16])
    }
}

/// Version 00, exact length, lower-case digits, neither id all zero.
fn is_valid(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    value.len() == 55
        && value.starts_with(b"00-")
        && value[35] == b'-'
        && value[52] == b'-'
        && hex(&value[3..35])
        && hex(&value[36..52])
        && hex(&value[53..55])
        && value[3..35].iter().any(|b| *b != b'0')
        && value[36..52].iter().any(|b| *b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn continues_a_valid_trace_with_our_span() {
        let theirs =
            HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let trace = TraceContext::new(Some(&theirs), &HexId::of(TRACE), SPAN);
        assert_eq!(
            trace.traceparent(),
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
        );
        assert_eq!(trace.span_id(), b"00f067aa0ba902b7");
    }

    #[test]
    fn begins_a_trace_when_the_incoming_one_is_bad() {
        for bad in [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let trace = TraceContext::new(
                Some(&HeaderValue::from_static(bad)),
                &HexId::of(TRACE),
                SPAN,
            );
            assert_eq!(trace.trace_id(), HexId::of(TRACE).as_bytes(), "{bad}");
        }
    }
}
