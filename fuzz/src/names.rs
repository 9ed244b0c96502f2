//! Certificates and the names in them; localities.

use crate::codec;
use synod_placement::Locality;
use synod_rpc::CertRole;
use synod_rpc::cert::{Subject, cluster_of_ca};

/// Bytes as a certificate: a subject in Synod's form, or an error that names
/// what was found.
pub fn certificate(bytes: &[u8]) {
    let subject = codec::bounded(bytes, Subject::of_der);
    if let Ok(subject) = subject {
        let role = match subject.role {
            CertRole::Node => "node:",
            CertRole::User => "user:",
        };
        assert_eq!(subject.to_string(), format!("{role}{}", subject.name));
        assert!(subject.name.len() <= bytes.len());
        assert!(cluster_of_ca(bytes).is_err(), "a subject is no CA");
    }
    let _ = codec::bounded(bytes, cluster_of_ca);
}

/// A text as a locality: what is accepted is written as it was read, and every
/// part of it is a locality too.
pub fn locality(text: &str) {
    let Ok(place) = text.parse::<Locality>() else {
        return;
    };
    assert_eq!(place.to_string(), text);
    let bytes = codec::encoded(&place);
    assert_eq!(postcard::from_bytes::<Locality>(&bytes), Ok(place.clone()));
    for depth in 0..=4 {
        let wider = place.through(depth);
        assert_eq!(wider.to_string().parse(), Ok(wider));
    }
}
