//! Who may ask: whoever shows the token, as a bearer's or as Basic's password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use tonic::{Request, Status};

/// The check of one port.
#[derive(Clone)]
pub(crate) struct Guard {
    token_hash: Option<[u8; 32]>,
}

impl Guard {
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self { token_hash: token.map(|token| Sha256::digest(token).into()) }
    }

    /// Lets a request in.
    pub(crate) fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token_hash) = &self.token_hash else { return Ok(request) };
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let offered = authorization.and_then(offered);
        if offered.is_some_and(|offered| <[u8; 32]>::from(Sha256::digest(offered)) == *token_hash) {
            return Ok(request);
        }
        Err(Status::unauthenticated(
            "the token is missing or another one (known: `authorization: Bearer TOKEN`, or Basic with it as password)",
        ))
    }

    /// What a client that was let in by its password shows from now on.
    pub(crate) fn bearer(&self, authorization: Option<&str>) -> String {
        let token = authorization.and_then(offered).filter(|_| self.token_hash.is_some());
        let token = token.and_then(|token| String::from_utf8(token).ok());
        format!("Bearer {}", token.as_deref().unwrap_or("none"))
    }
}

/// The token that an `authorization` offers.
fn offered(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(credentials.trim().as_bytes().to_vec());
    }
    // Some clients pad, and some do not.
    let pair = scheme
        .eq_ignore_ascii_case("Basic")
        .then(|| STANDARD_NO_PAD.decode(credentials.trim().trim_end_matches('=')).ok())??;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn asks(guard: &Guard, authorization: &str) -> bool {
        let mut request = Request::new(());
        if !authorization.is_empty() {
            request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        }
        guard.check(request).is_ok()
    }

    #[test]
    fn a_token_is_taken_in_both_forms_and_nothing_else_is() {
        let guard = Guard::new(Some("se:same"));
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert!(asks(&guard, "Bearer se:same") && asks(&guard, &basic("anyone:se:same")));
        assert!(
            asks(&guard, basic("anyone:se:same").trim_end_matches('=')),
            "without padding, as Go's clients send it"
        );
        for wrong in ["", "Bearer", "Bearer se", "se:same", &basic("se:same"), "Digest se:same"] {
            assert!(!asks(&guard, wrong), "{wrong}");
        }
        assert_eq!(guard.bearer(Some(&basic("anyone:se:same"))), "Bearer se:same");
        assert!(asks(&Guard::new(None), ""));
        assert_eq!(Guard::new(None).bearer(None), "Bearer none");
    }
}
