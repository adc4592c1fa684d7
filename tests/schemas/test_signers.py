"""Signers of models: keys, signatures, and the file of trusted signers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadTagError, ConfigError, SecretError
from schemas.keys.signers import (
    MAX_TRUST_BYTES,
    SignaturePurpose,
    Signer,
    TrustedSigners,
    fingerprint,
    write_signer,
)

ADA, BOB = Signer.new(), Signer.new()


def trust_file(folder: Path, *lines: str) -> Path:
    file = folder / "trusted-signers"
    file.write_text("\n".join(lines))
    return file


@given(message=st.binary(max_size=200), position=st.integers(min_value=0), purpose=st.sampled_from(SignaturePurpose))
def test_a_signature_is_valid_only_for_its_message_purpose_and_signer(
    message: bytes, position: int, purpose: SignaturePurpose
) -> None:
    trusted = TrustedSigners({ADA.public: "ada", BOB.public: "bob"})
    signature = ADA.sign(purpose, message)
    assert trusted.verify(purpose, message, ADA.public, signature) == "ada"
    flipped = bytearray(signature)
    flipped[position % len(flipped)] ^= 1 << position % 8
    others = set(SignaturePurpose) - {purpose}
    for wrong in (
        (purpose, message + b"x", ADA.public, signature),
        *((other, message, ADA.public, signature) for other in others),
        (purpose, message, BOB.public, signature),
        (purpose, message, ADA.public, bytes(flipped)),
        (purpose, message, ADA.public, signature[:-1]),
        (purpose, message, ADA.public, b""),
        (purpose, message, b"", signature),
        (purpose, message, ADA.public[:-1], signature),
    ):
        with pytest.raises(BadTagError):
            trusted.verify(*wrong)


def test_trusted_signers_are_read_from_public_keys_in_the_format_of_ssh_keygen(tmp_path: Path) -> None:
    file = trust_file(tmp_path, "# who may publish", "", ADA.line("ada@office"), f"  {BOB.line('bob')}  ")
    trusted = TrustedSigners.read(file)
    assert (
        trusted.verify(SignaturePurpose.MODELS, b"x", ADA.public, ADA.sign(SignaturePurpose.MODELS, b"x"))
        == "ada@office"
    )
    assert trusted.verify(SignaturePurpose.MODELS, b"x", BOB.public, BOB.sign(SignaturePurpose.MODELS, b"x")) == "bob"
    carol = Signer.new()
    with pytest.raises(BadTagError, match=f"signed by {fingerprint(carol.public)}, who is not trusted$"):
        trusted.verify(SignaturePurpose.MODELS, b"x", carol.public, carol.sign(SignaturePurpose.MODELS, b"x"))
    assert len(ADA.public) == 32


def test_an_empty_file_of_trusted_signers_trusts_nobody(tmp_path: Path) -> None:
    for trusted in (TrustedSigners.read(trust_file(tmp_path, "# nobody yet")), TrustedSigners.read(None)):
        with pytest.raises(BadTagError, match="no signer is, --trust FILE names them"):
            trusted.verify(SignaturePurpose.MODELS, b"x", ADA.public, ADA.sign(SignaturePurpose.MODELS, b"x"))


def test_a_signer_trusts_itself_and_the_named_signers() -> None:
    named = TrustedSigners({BOB.public: "bob"})
    trusted = named.with_signer(ADA)
    assert (
        trusted.verify(SignaturePurpose.MODELS, b"x", ADA.public, ADA.sign(SignaturePurpose.MODELS, b"x"))
        == "this signer"
    )
    assert trusted.verify(SignaturePurpose.MODELS, b"x", BOB.public, BOB.sign(SignaturePurpose.MODELS, b"x")) == "bob"
    assert set(trusted.publics()) == {ADA.public, BOB.public}
    assert named.publics() == named.with_signer(None).publics() == (BOB.public,)
    own = trusted.with_signer(BOB)
    assert own.verify(SignaturePurpose.MODELS, b"x", BOB.public, BOB.sign(SignaturePurpose.MODELS, b"x")) == "bob"


def ec_line() -> str:
    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


WRONG_LINES = {
    "a name": "ada",
    "no name": ADA.line("ada").rpartition(" ")[0],
    "no key": "ssh-ed25519 AAAA ada",
    "another kind": f"{ec_line()} ada",
    "words": ADA.line("ada") + " of the office",
    "no base64": "ssh-ed25519 \N{SNOWMAN} ada",
    "a strange name": ADA.line("ada") + "\N{SNOWMAN}",
}


@pytest.mark.parametrize("kind", WRONG_LINES)
def test_an_invalid_line_is_named_by_its_number(tmp_path: Path, kind: str) -> None:
    file = trust_file(tmp_path, BOB.line("bob"), WRONG_LINES[kind])
    with pytest.raises(
        ConfigError, match="trusted-signers, line 2: expected a public key as `ssh-ed25519 BASE64 NAME`"
    ):
        TrustedSigners.read(file)


def test_a_missing_or_too_large_file_of_trusted_signers_is_rejected_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trusted signers: expected a readable file, got .*absent: No such file"):
        TrustedSigners.read(tmp_path / "absent")
    with pytest.raises(ConfigError, match="expected at most"):
        TrustedSigners.read(trust_file(tmp_path, "#" * MAX_TRUST_BYTES, "#"))


def test_a_private_key_can_be_read_again_and_only_by_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "ada.key"
    write_signer(file, ADA)
    assert file.stat().st_mode & 0o777 == 0o600
    assert Signer.read(file).public == ADA.public
    with pytest.raises(FileExistsError):
        write_signer(file, BOB)
    assert "PRIVATE" not in repr(ADA)


def test_a_key_made_by_openssl_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True, capture_output=True)
    assert Signer.read(file).sign(SignaturePurpose.BUNDLE, b"x")


def test_an_invalid_private_key_is_rejected_without_showing_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(SecretError, match=r"signer: expected a readable private key, got .*: No such file"):
        Signer.read(file)
    locked = load_pem_private_key(ADA.export().encode(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"", b"a secret", locked, other, ADA.export()[:-40].encode()):
        file.write_bytes(content)
        with pytest.raises(SecretError, match="expected a signer's private key, Ed25519 in PEM") as caught:
            Signer.read(file)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
