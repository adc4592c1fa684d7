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


@given(message=st.binary(max_size=200), position=st.integers(min_value=0), what=st.sampled_from(SignaturePurpose))
def test_a_signature_holds_for_its_message_its_purpose_and_its_signer_alone(
    message: bytes, position: int, what: SignaturePurpose
) -> None:
    trusted = TrustedSigners({ADA.public: "ada", BOB.public: "bob"})
    signature = ADA.sign(what, message)
    assert trusted.verify(what, message, ADA.public, signature) == "ada"
    bent = bytearray(signature)
    bent[position % len(bent)] ^= 1 << position % 8
    others = set(SignaturePurpose) - {what}
    for wrong in (
        (what, message + b"x", ADA.public, signature),
        *((other, message, ADA.public, signature) for other in others),
        (what, message, BOB.public, signature),
        (what, message, ADA.public, bytes(bent)),
        (what, message, ADA.public, signature[:-1]),
        (what, message, ADA.public, b""),
        (what, message, b"", signature),
        (what, message, ADA.public[:-1], signature),
    ):
        with pytest.raises(BadTagError):
            trusted.verify(*wrong)


def test_what_ssh_keygen_takes_for_a_key_is_what_is_trusted(tmp_path: Path) -> None:
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


def test_a_file_that_names_nobody_trusts_nobody(tmp_path: Path) -> None:
    for trusted in (TrustedSigners.read(trust_file(tmp_path, "# nobody yet")), TrustedSigners.read(None)):
        with pytest.raises(BadTagError, match="no signer is, --trust FILE names them"):
            trusted.verify(SignaturePurpose.MODELS, b"x", ADA.public, ADA.sign(SignaturePurpose.MODELS, b"x"))


def test_a_signer_trusts_itself_besides_those_whom_it_names() -> None:
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
def test_another_kind_of_line_is_named_by_its_number(tmp_path: Path, kind: str) -> None:
    file = trust_file(tmp_path, BOB.line("bob"), WRONG_LINES[kind])
    with pytest.raises(
        ConfigError, match="trusted-signers, line 2: expected a public key as `ssh-ed25519 BASE64 NAME`"
    ):
        TrustedSigners.read(file)


def test_a_missing_or_huge_file_of_trusted_signers_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trusted signers: expected a readable file, got .*absent: No such file"):
        TrustedSigners.read(tmp_path / "absent")
    with pytest.raises(ConfigError, match="expected at most"):
        TrustedSigners.read(trust_file(tmp_path, "#" * MAX_TRUST_BYTES, "#"))


def test_a_private_key_is_read_back_and_stays_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "ada.key"
    write_signer(file, ADA)
    assert file.stat().st_mode & 0o777 == 0o600
    assert Signer.read(file).public == ADA.public
    with pytest.raises(FileExistsError):
        write_signer(file, BOB)
    assert "PRIVATE" not in repr(ADA)


def test_a_key_that_openssl_made_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True, capture_output=True)
    assert Signer.read(file).sign(SignaturePurpose.BUNDLE, b"x")


def test_what_is_no_private_key_is_refused_without_being_shown(tmp_path: Path) -> None:
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
