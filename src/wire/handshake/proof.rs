//! The cryptography of links: proofs that both ends know the mesh secret, and keys derived from it. All of it is
//! HMAC-SHA-256 (RFC 2104, FIPS 180-4).

use super::Offer;
use hmac_sha256::HMAC;
use subtle::ConstantTimeEq;

/// Bytes of a hash secret: the key of the hash function.
pub const HASH_SECRET_BYTES: usize = 192;

const HMAC_BYTES: usize = 32;

/// A proof that a node knows the mesh secret; empty where there is none.
#[derive(Debug, Clone, Copy)]
pub struct Proof(pub(super) Option<[u8; HMAC_BYTES]>);

/// The end of a link that a proof is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    /// The dialled end.
    Acceptor,
    /// The dialling end.
    Dialler,
}

impl Proof {
    /// Computes the proof of one end: `own` is the prover's offer, `other` that of the other end.
    pub fn of(secret: Option<&[u8]>, prover: Prover, own: &Offer<'_>, other: &Offer<'_>) -> Self {
        let label: &[u8] = match prover {
            Prover::Acceptor => b"olivia accept 1",
            Prover::Dialler => b"olivia connect 1",
        };
        Self(secret.map(|secret| {
            let mut hmac = HMAC::new(secret);
            hmac.update(label);
            hmac.update([0]);
            let fields: [&[u8]; 6] =
                [&own.nonce, &other.nonce, &own.node, &other.node, own.listen, other.listen];
            for field in fields {
                hmac.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_le_bytes());
                hmac.update(field);
            }
            hmac.finalize()
        }))
    }

    /// Whether `given` equals this proof, in constant time.
    pub fn matches(&self, given: &Self) -> bool {
        match (&self.0, &given.0) {
            (Some(own), Some(given)) => own.ct_eq(given).into(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// The hash secret of all nodes of a mesh, expanded from the mesh secret.
pub fn derive_hash_secret(mesh_secret: &[u8]) -> [u8; HASH_SECRET_BYTES] {
    expand(mesh_secret, b"olivia hash 1")
}

/// The hash secret of nodes without a mesh secret, which link on loopback only. It is public.
pub fn public_hash_secret() -> [u8; HASH_SECRET_BYTES] {
    expand(b"", b"olivia loopback hash 1")
}

/// 16 bytes determined by a key and a number, unpredictable without the key.
pub fn keyed_bytes(key: &[u8; 32], number: u64) -> [u8; 16] {
    let block = labelled(key, b"olivia draw 1", &number.to_le_bytes());
    std::array::from_fn(|at| block[at])
}

/// A key derived from a key and a salt.
pub fn other_key(key: &[u8; 32], salt: &[u8]) -> [u8; 32] {
    labelled(key, b"olivia other key 1", salt)
}

/// HMAC in counter mode, as the KDF of NIST SP 800-108 has it, under a label of its own.
fn expand(key: &[u8], label: &[u8]) -> [u8; HASH_SECRET_BYTES] {
    let mut out = [0; HASH_SECRET_BYTES];
    for (counter, chunk) in (1u32..).zip(out.chunks_exact_mut(HMAC_BYTES)) {
        chunk.copy_from_slice(&labelled(key, label, &counter.to_le_bytes()));
    }
    out
}

fn labelled(key: &[u8], label: &[u8], input: &[u8]) -> [u8; HMAC_BYTES] {
    let mut hmac = HMAC::new(key);
    hmac.update(label);
    hmac.update([0]);
    hmac.update(input);
    hmac.finalize()
}
