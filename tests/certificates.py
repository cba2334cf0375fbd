"""Certificates of a small authority, as PEM files for a server and its clients."""

import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key


class Authority:
    """Issues certificates into a folder; `root` is the file that a peer trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "ca.pem"
        self._ca = trustme.CA()
        folder.mkdir(exist_ok=True)
        self._ca.cert_pem.write_to_path(str(self.root))

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """A certificate chain and its key: `name`.pem and `name`.key, written over what is there."""
        made = self._ca.issue_cert(*(identities or ("127.0.0.1", "localhost")))
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return cert, key

    def trusting(self, *pair: Path) -> ssl.SSLContext:
        """A client's context that trusts this authority, and shows a certificate if given one."""
        return self.context(self.root, *pair)

    @staticmethod
    def context(root: Path, *pair: Path) -> ssl.SSLContext:
        """The same of an authority of which only the file is known."""
        context = ssl.create_default_context(cafile=root)
        if pair:
            context.load_cert_chain(*pair)
        return context


def encrypted(key: Path) -> Path:
    """The key behind a passphrase."""
    plain = load_key(key.read_bytes(), None)
    path = key.with_suffix(".locked")
    path.write_bytes(
        plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    )
    return path
