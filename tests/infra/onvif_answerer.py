"""A small ONVIF camera on loopback, which answers probes and SOAP requests with its password."""

from __future__ import annotations

import base64
import re
import socket
import threading
from datetime import UTC, datetime
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

GROUP, PORT = "239.255.255.250", 3702
SOAP = "http://www.w3.org/2003/05/soap-envelope"
NAMES = (
    'xmlns:tds="http://www.onvif.org/ver10/device/wsdl" xmlns:trt="http://www.onvif.org/ver10/media/wsdl" '
    'xmlns:tt="http://www.onvif.org/ver10/schema"'
)
SECRET = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd}"
CREATED = "{http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd}Created"


class OnvifCamera:
    """An ONVIF camera that runs inside a `with` block.

    `requests` are the names of the answered requests, and `rejected` counts those without the expected password.
    """

    def __init__(self, stream: str, login: str, name: str = "Front%20Gate", model: str = "Dome 7") -> None:
        self.requests: list[str] = []
        self.rejected = 0
        self._stream = stream
        self._user, _, self._password = login.partition(":")
        self._name = name
        self._model = model

    def __enter__(self) -> Self:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, body = camera.answer(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Type", "application/soap+xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((GROUP, PORT))
        membership = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._socket.settimeout(0.1)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._server.serve_forever, self._answer_probes)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self._socket.close()

    def _answer_probes(self) -> None:
        while not self._stopped.is_set():
            try:
                data, sender = self._socket.recvfrom(65_535)
            except TimeoutError:
                continue
            message_id = re.search(rb"MessageID>([^<]+)<", data)
            if b"/discovery/Probe<" in data and message_id is not None:
                self._socket.sendto(self._match(message_id[1].decode()), sender)

    def _match(self, message_id: str) -> bytes:
        """Return a ProbeMatches message as cameras send it (WS-Discovery 2005/04, 5.3)."""
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<s:Envelope xmlns:s="{SOAP}" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"
 xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" xmlns:dn="http://www.onvif.org/ver10/network/wsdl">
<s:Header><a:MessageID>urn:uuid:answer-to-{message_id[-36:]}</a:MessageID><a:RelatesTo>{message_id}</a:RelatesTo>
<a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:To>
<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/ProbeMatches</a:Action></s:Header>
<s:Body><d:ProbeMatches><d:ProbeMatch>
<a:EndpointReference><a:Address>urn:uuid:{self.address}</a:Address></a:EndpointReference>
<d:Types>dn:NetworkVideoTransmitter</d:Types>
<d:Scopes>onvif://www.onvif.org/name/{self._name} onvif://www.onvif.org/hardware/D7</d:Scopes>
<d:XAddrs>http://{self.address}/onvif/device_service</d:XAddrs><d:MetadataVersion>1</d:MetadataVersion>
</d:ProbeMatch></d:ProbeMatches></s:Body></s:Envelope>""".encode()

    def answer(self, request: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer to a SOAP request."""
        envelope = ElementTree.fromstring(request)
        body = envelope.find(f"{{{SOAP}}}Body")
        assert body is not None
        name = body[0].tag.rpartition("}")[2]
        if name != "GetSystemDateAndTime" and not self._is_authorized(envelope):
            self.rejected += 1
            return 400, _soap(
                "<s:Fault><s:Code><s:Value>s:Sender</s:Value></s:Code>"
                '<s:Reason><s:Text xml:lang="en">Sender not authorized</s:Text></s:Reason></s:Fault>'
            )
        self.requests.append(name)
        return 200, _soap(f"<{_prefix(name)}:{name}Response>{self._content(name)}</{_prefix(name)}:{name}Response>")

    def _is_authorized(self, envelope: ElementTree.Element) -> bool:
        """Return whether a request has the digest of the expected password (WS-Security UsernameToken 1.0, 3.1)."""
        token = envelope.find(f".//{SECRET}UsernameToken")
        if token is None:
            return False
        user, digest, nonce = (token.findtext(f"{SECRET}{part}", "") for part in ("Username", "Password", "Nonce"))
        expected = sha1(
            base64.b64decode(nonce) + token.findtext(CREATED, "").encode() + self._password.encode()
        ).digest()
        return (user, digest) == (self._user, base64.b64encode(expected).decode())

    def _content(self, name: str) -> str:
        if name == "GetSystemDateAndTime":
            now = datetime.now(UTC)
            return (
                "<tds:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType>"
                "<tt:DaylightSavings>false</tt:DaylightSavings><tt:UTCDateTime>"
                f"<tt:Time><tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute>"
                f"<tt:Second>{now.second}</tt:Second></tt:Time><tt:Date><tt:Year>{now.year}</tt:Year>"
                f"<tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day></tt:Date>"
                "</tt:UTCDateTime></tds:SystemDateAndTime>"
            )
        if name == "GetServices":
            services = (("device", "device_service"), ("media", "media_service"))
            return "".join(
                f"<tds:Service><tds:Namespace>http://www.onvif.org/ver10/{service}/wsdl</tds:Namespace>"
                f"<tds:XAddr>http://{self.address}/onvif/{path}</tds:XAddr>"
                "<tds:Version><tt:Major>2</tt:Major><tt:Minor>6</tt:Minor></tds:Version></tds:Service>"
                for service, path in services
            )
        if name == "GetDeviceInformation":
            return (
                f"<tds:Manufacturer>Acme\u009b</tds:Manufacturer><tds:Model>{self._model}</tds:Model>"
                "<tds:FirmwareVersion>1</tds:FirmwareVersion><tds:SerialNumber>7</tds:SerialNumber>"
                "<tds:HardwareId>D7</tds:HardwareId>"
            )
        if name == "GetProfiles":
            return (
                '<trt:Profiles token="main" fixed="true"><tt:Name>Main stream</tt:Name>'
                '<tt:VideoEncoderConfiguration token="v"><tt:Name>v</tt:Name><tt:UseCount>1</tt:UseCount>'
                "<tt:Encoding>H264</tt:Encoding><tt:Resolution><tt:Width>64</tt:Width><tt:Height>48</tt:Height>"
                "</tt:Resolution><tt:Quality>5</tt:Quality><tt:RateControl><tt:FrameRateLimit>25</tt:FrameRateLimit>"
                "<tt:EncodingInterval>1</tt:EncodingInterval><tt:BitrateLimit>512</tt:BitrateLimit></tt:RateControl>"
                "<tt:Multicast><tt:Address><tt:Type>IPv4</tt:Type></tt:Address><tt:Port>0</tt:Port><tt:TTL>1</tt:TTL>"
                "<tt:AutoStart>false</tt:AutoStart></tt:Multicast><tt:SessionTimeout>PT60S</tt:SessionTimeout>"
                "</tt:VideoEncoderConfiguration></trt:Profiles>"
            )
        assert name == "GetStreamUri"
        return (
            f"<trt:MediaUri><tt:Uri>{self._stream}</tt:Uri><tt:InvalidAfterConnect>false</tt:InvalidAfterConnect>"
            "<tt:InvalidAfterReboot>false</tt:InvalidAfterReboot><tt:Timeout>PT0S</tt:Timeout></trt:MediaUri>"
        )


def _prefix(name: str) -> str:
    return "trt" if name in ("GetProfiles", "GetStreamUri") else "tds"


def _soap(body: str) -> bytes:
    return f'<?xml version="1.0"?><s:Envelope xmlns:s="{SOAP}" {NAMES}><s:Body>{body}</s:Body></s:Envelope>'.encode()
