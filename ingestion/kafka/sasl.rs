//! Logging in: PLAIN (RFC 4616) and SCRAM (RFC 5802, 7677), as far as Kafka uses them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

/// Rounds of hashing that a server may ask for: more would be an attack on us, fewer than RFC 7677's one on the password.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::ScramSha512 => Sha512::digest(bytes).to_vec(),
            Self::Plain | Self::ScramSha256 => Sha256::digest(bytes).to_vec(),
        }
    }

    fn sign(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::ScramSha512 => sign::<Hmac<Sha512>>(key, parts),
            Self::Plain | Self::ScramSha256 => sign::<Hmac<Sha256>>(key, parts),
        }
    }

    /// RFC 5802's `Hi`: the password, made costly to guess.
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut block = self.sign(password, &[salt, &1_u32.to_be_bytes()]);
        let mut sum = block.clone();
        for _ in 1..iterations {
            block = self.sign(password, &[&block]);
            sum.iter_mut().zip(&block).for_each(|(sum, byte)| *sum ^= byte);
        }
        sum
    }
}

fn sign<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The one message of PLAIN.
pub(crate) fn plain(username: &str, password: &str) -> Vec<u8> {
    format!("\0{username}\0{password}").into_bytes()
}

/// A conversation by SCRAM: what the client says first, then what it answers, then whether the server knows the password too.
pub(crate) struct Scram {
    mechanism: Mechanism,
    password: String,
    nonce: String,
    first_bare: String,
    server_signature: Vec<u8>,
}

impl Scram {
    /// `nonce` is said once and never again.
    pub(crate) fn new(mechanism: Mechanism, username: &str, password: &str, nonce: String) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={username},r={nonce}");
        Self { mechanism, password: password.to_owned(), nonce, first_bare, server_signature: Vec::new() }
    }

    pub(crate) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// The answer to the server's first message, or what is wrong with that.
    pub(crate) fn answer(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let text = std::str::from_utf8(server_first).map_err(|_| "the server's challenge is no text".to_owned())?;
        let field = |name: &str| text.split(',').find_map(|part| part.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (field("r="), field("s="), field("i=")) else {
            return Err("the server's challenge is malformed".to_owned());
        };
        let salt = STANDARD.decode(salt).map_err(|_| "the server's salt is malformed".to_owned())?;
        let iterations = iterations.parse().ok().filter(|iterations| ITERATIONS.contains(iterations));
        let iterations = iterations.ok_or_else(|| format!("the server's iterations are not in {ITERATIONS:?}"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's challenge is not the answer to ours".to_owned());
        }
        let mechanism = self.mechanism;
        let salted = mechanism.salted(self.password.as_bytes(), &salt, iterations);
        let client_key = mechanism.sign(&salted, &[b"Client Key"]);
        let stored_key = mechanism.hash(&client_key);
        let last_bare = format!("c=biws,r={nonce}");
        let said = format!("{},{text},{last_bare}", self.first_bare);
        let signature = mechanism.sign(&stored_key, &[said.as_bytes()]);
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, byte)| key ^ byte).collect();
        let server_key = mechanism.sign(&salted, &[b"Server Key"]);
        self.server_signature = mechanism.sign(&server_key, &[said.as_bytes()]);
        Ok(format!("{last_bare},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Whether the server has proven that it knows the password.
    pub(crate) fn check(&self, server_last: &[u8]) -> Result<(), String> {
        let expected = format!("v={}", STANDARD.encode(&self.server_signature));
        let text = String::from_utf8_lossy(server_last);
        let is_proven = text.split(',').next() == Some(&expected) && !self.server_signature.is_empty();
        is_proven.then_some(()).ok_or_else(|| "the server does not prove that it knows the password".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scram_answers_as_in_rfc_7677() {
        let mut scram = Scram::new(Mechanism::ScramSha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = scram.answer(challenge.as_bytes()).unwrap();
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
        assert_eq!(scram.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert!(scram.check(b"v=AAAATRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").is_err());
    }

    #[test]
    fn a_server_that_asks_for_what_is_unsafe_is_refused() {
        let says = |challenge: &str| {
            let mut scram = Scram::new(Mechanism::ScramSha512, "user", "pencil", "abc".to_owned());
            scram.answer(challenge.as_bytes()).map(drop)
        };
        assert_eq!(says("r=abcdef,s=QSXCR+Q6sek8bf92,i=4096"), Ok(()));
        for wrong in [
            "r=abcdef,s=QSXCR+Q6sek8bf92,i=1",
            "r=abcdef,s=QSXCR+Q6sek8bf92,i=4000000000",
            "r=abc,s=QSXCR+Q6sek8bf92,i=4096",
            "r=xyzabc,s=QSXCR+Q6sek8bf92,i=4096",
            "e=other-error",
        ] {
            assert!(says(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mechanisms_are_known_by_their_names() {
        assert_eq!(Mechanism::of_name("scram-sha-512"), Some(Mechanism::ScramSha512));
        assert_eq!(Mechanism::of_name("GSSAPI"), None);
        assert_eq!(plain("user", "pencil"), b"\0user\0pencil");
    }
}
