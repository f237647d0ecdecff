"""Certificates for PostgreSQL."""

from __future__ import annotations

import contextlib
import datetime
import pathlib

from cryptography import x509
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .postgres import Postgres
from .process import give_to_servers


@contextlib.contextmanager
def certified(postgres: Postgres, host: str):
    """Let the server show a certificate for this host; yields the signing certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1(), default_backend())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    today = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today)
        .not_valid_after(datetime.datetime(2050, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256(), default_backend())
    )
    signer = postgres.folder.parent / "signer.pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    signer.write_bytes(pem)
    _write(postgres.data / "server.crt", pem)
    _write(
        postgres.data / "server.key",
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )
    postgres.execute("ALTER SYSTEM SET ssl = on")
    postgres.execute("SELECT pg_reload_conf()")
    try:
        yield signer
    finally:
        postgres.execute("ALTER SYSTEM RESET ssl")
        postgres.execute("SELECT pg_reload_conf()")


def _write(path: pathlib.Path, content: bytes):
    path.touch(0o600)
    path.write_bytes(content)
    give_to_servers(path)
