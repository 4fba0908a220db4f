//! The header of a load balancer.

use protocol_proxy_header::{Parsed, parse};

/// What is missing is asked for until it is there, and never more than the header's own bytes.
pub fn proxy_header(data: &[u8]) {
    let whole = parse(data);
    let mut have = 0;
    while let Some(Ok(Parsed::Need(more))) = data.get(..have).map(parse) {
        assert!(more > 0, "nothing is missing and it is not whole");
        have += more;
    }
    if let Ok(Parsed::Header { used, .. }) = whole {
        assert_eq!(have, used, "more was asked for than the header");
    }
    if let Some(begun) = data.get(..have) {
        assert_eq!(
            parse(begun),
            whole,
            "what follows the header does not matter"
        );
    }
}
