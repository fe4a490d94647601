//! Which files do, and when they are taken.

use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// Files of a folder.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put(&pair());
        folder
    }

    fn put(&self, (cert, key): &(String, String)) {
        self.write("cert.pem", cert);
        self.write("key.pem", key);
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn files(&self, client_ca: Option<&str>) -> TlsFiles {
        let path = |name| self.0.path().join(name);
        let client_ca = client_ca.map(path);
        TlsFiles { cert: path("cert.pem"), key: path("key.pem"), client_ca }
    }

    fn error(&self, client_ca: Option<&str>) -> String {
        let error = Tls::load(self.files(client_ca)).unwrap_err();
        Chain(&error).to_string().replace(self.0.path().to_str().unwrap(), "DIR")
    }
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let (cert, key) = pair();
    folder.write("key.pem", &key);
    assert!(folder.error(None).starts_with("DIR/cert.pem and DIR/key.pem do not go together"));
    folder.write("cert.pem", &key);
    assert!(folder.error(None).starts_with("DIR/cert.pem does not hold certificates in PEM"));
    folder.put(&(cert.clone(), cert));
    assert!(folder.error(None).starts_with("DIR/key.pem does not hold a private key in PEM"));
    folder.put(&pair());
    assert!(folder.error(Some("ca.pem")).starts_with("cannot read DIR/ca.pem: No such file"));
    folder.write("ca.pem", "");
    let empty = folder.error(Some("ca.pem"));
    assert!(empty.starts_with("DIR/ca.pem does not hold certificates in PEM"), "{empty}");
    folder.write("ca.pem", &pair().0);
    assert!(Tls::load(folder.files(Some("ca.pem"))).is_ok());
}

#[test]
fn only_a_new_and_good_certificate_replaces_the_old() {
    let folder = Folder::new();
    let tls = Tls::load(folder.files(None)).unwrap();
    let now = || Arc::clone(&tls.now.lock());
    let first = now();
    tls.look();
    assert!(Arc::ptr_eq(&first, &now()), "nothing has changed");
    let (cert, key) = pair();
    folder.write("key.pem", &key);
    tls.look();
    assert!(Arc::ptr_eq(&first, &now()), "half of a pair");
    fs::remove_file(folder.0.path().join("cert.pem")).unwrap();
    tls.look();
    assert!(Arc::ptr_eq(&first, &now()), "no certificate");
    folder.write("cert.pem", &cert);
    tls.look();
    assert!(!Arc::ptr_eq(&first, &now()), "the pair is whole");
    assert_eq!(now().alpn_protocols, PROTOCOLS.map(<[u8]>::to_vec));
}
