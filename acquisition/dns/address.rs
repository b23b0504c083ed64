//! Hides who asked, before anything is written: addresses are cut to a prefix or replaced by a keyed hash.

use std::hash::Hasher;

use contract::{Error, Result};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::settings::{AddressForm, Settings};

/// Changes addresses in place, so that what holds them keeps its length.
#[derive(Clone)]
pub(super) enum AddressMask {
    Whole,
    Prefix { ipv4_bits: u8, ipv6_bits: u8 },
    Hash(Box<SipHasher24>),
}

impl AddressMask {
    /// As set.
    ///
    /// # Errors
    /// `Change` when a prefix is longer than an address, or there is no key to hash with.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        match settings.addresses {
            AddressForm::Whole => Ok(Self::Whole),
            AddressForm::Prefix => {
                let (ipv4_bits, ipv6_bits) = (settings.ipv4_prefix, settings.ipv6_prefix);
                check("ipv4_prefix", ipv4_bits, 32)?;
                check("ipv6_prefix", ipv6_bits, 128)?;
                Ok(Self::Prefix { ipv4_bits, ipv6_bits })
            }
            AddressForm::Hash => {
                let Some(secret) = settings.hash_key.reveal() else {
                    let empty = "set `dns.addresses` to `hash` (`dns.hash_key` should be set, it is empty)";
                    return Err(Error::change(empty));
                };
                let mut key = [0; 16];
                key.copy_from_slice(&Sha256::digest(secret.as_bytes())[..16]);
                Ok(Self::Hash(Box::new(SipHasher24::new_with_key(&key))))
            }
        }
    }

    /// Whether addresses stay as they are.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Hides an address of 4 or 16 bytes.
    pub(super) fn hide(&self, address: &mut [u8]) {
        let bits = address.len() * 8;
        self.hide_subnet(address, bits == 128, bits);
    }

    /// Hides the first bytes of an address, of which `bits` count; the bits after them stay zero.
    pub(super) fn hide_subnet(&self, address: &mut [u8], is_ipv6: bool, bits: usize) {
        match self {
            Self::Whole => {}
            Self::Prefix { ipv4_bits, ipv6_bits } => {
                clear_after(address, usize::from(if is_ipv6 { *ipv6_bits } else { *ipv4_bits }));
            }
            Self::Hash(keyed) => {
                let mut hasher = **keyed;
                hasher.write(address);
                let hash = hasher.finish128().as_bytes();
                let length = address.len().min(hash.len());
                address[..length].copy_from_slice(&hash[..length]);
                clear_after(address, bits);
            }
        }
    }
}

fn check(name: &str, bits: u8, bits_max: u8) -> Result<()> {
    match bits <= bits_max {
        true => Ok(()),
        false => Err(Error::change(format!("set `dns.{name}` to {bits} (should be 0 to {bits_max})"))),
    }
}

fn clear_after(address: &mut [u8], bits: usize) {
    for (place, byte) in address.iter_mut().enumerate() {
        let kept = bits.saturating_sub(place * 8).min(8) as u32;
        *byte &= !0xff_u8.checked_shr(kept).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(settings: &Settings, address: &[u8]) -> Vec<u8> {
        let mut address = address.to_vec();
        AddressMask::new(settings).unwrap().hide(&mut address);
        address
    }

    #[test]
    fn a_prefix_keeps_its_bits_and_no_more() {
        let settings = Settings { addresses: AddressForm::Prefix, ipv4_prefix: 20, ..Settings::default() };
        assert_eq!(hidden(&settings, &[192, 0, 0xff, 1]), [192, 0, 0xf0, 0]);
        assert_eq!(hidden(&settings, &[0xff; 16])[4..], [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let all = Settings { ipv4_prefix: 32, ..settings.clone() };
        assert_eq!(hidden(&all, &[192, 0, 2, 1]), [192, 0, 2, 1]);
        let none = Settings { ipv4_prefix: 0, ..settings };
        assert_eq!(hidden(&none, &[192, 0, 2, 1]), [0; 4]);
    }

    #[test]
    fn a_hash_tells_clients_apart_and_depends_on_the_key() {
        let keyed = |key: &str| Settings {
            addresses: AddressForm::Hash,
            hash_key: key.to_owned().into(),
            ..Settings::default()
        };
        let first = hidden(&keyed("a"), &[192, 0, 2, 1]);
        assert_eq!(first, hidden(&keyed("a"), &[192, 0, 2, 1]));
        assert_ne!(first, hidden(&keyed("a"), &[192, 0, 2, 2]));
        assert_ne!(first, hidden(&keyed("b"), &[192, 0, 2, 1]));
        assert_eq!(hidden(&keyed("a"), &[1; 16]).len(), 16);
    }

    #[test]
    fn wrong_settings_are_refused_with_what_would_be_right() {
        let say = |settings| AddressMask::new(&settings).err().unwrap().to_string();
        let no_key = Settings { addresses: AddressForm::Hash, ..Settings::default() };
        assert_eq!(say(no_key), "failed to set `dns.addresses` to `hash` (`dns.hash_key` should be set, it is empty)");
        let too_long = Settings { addresses: AddressForm::Prefix, ipv4_prefix: 33, ..Settings::default() };
        assert_eq!(say(too_long), "failed to set `dns.ipv4_prefix` to 33 (should be 0 to 32)");
    }
}
