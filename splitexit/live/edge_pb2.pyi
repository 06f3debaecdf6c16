from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Version(_message.Message):
    __slots__ = ("major", "minor")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: Version
    def __init__(self, protocol: _Optional[_Union[Version, _Mapping]] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("split", "shape", "codecs")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    split: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    codecs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, split: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ..., codecs: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("protocol", "bundle", "digests", "stages", "exits", "num_classes", "splits", "max_request_bytes", "hardware", "machine")
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class MachineEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    EXITS_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    protocol: Version
    bundle: str
    digests: _containers.ScalarMap[str, str]
    stages: int
    exits: int
    num_classes: int
    splits: _containers.RepeatedCompositeFieldContainer[Split]
    max_request_bytes: int
    hardware: str
    machine: _containers.ScalarMap[str, str]
    def __init__(self, protocol: _Optional[_Union[Version, _Mapping]] = ..., bundle: _Optional[str] = ..., digests: _Optional[_Mapping[str, str]] = ..., stages: _Optional[int] = ..., exits: _Optional[int] = ..., num_classes: _Optional[int] = ..., splits: _Optional[_Iterable[_Union[Split, _Mapping]]] = ..., max_request_bytes: _Optional[int] = ..., hardware: _Optional[str] = ..., machine: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ExitCheck(_message.Message):
    __slots__ = ("exit", "rule", "threshold")
    EXIT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    exit: int
    rule: str
    threshold: float
    def __init__(self, exit: _Optional[int] = ..., rule: _Optional[str] = ..., threshold: _Optional[float] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("protocol", "bundle", "request", "device", "split", "codec", "payload", "exits", "left_ms", "seed", "timed", "ruled_out", "evidence")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    EXITS_FIELD_NUMBER: _ClassVar[int]
    LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TIMED_FIELD_NUMBER: _ClassVar[int]
    RULED_OUT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    protocol: Version
    bundle: int
    request: int
    device: int
    split: int
    codec: str
    payload: bytes
    exits: _containers.RepeatedCompositeFieldContainer[ExitCheck]
    left_ms: float
    seed: int
    timed: bool
    ruled_out: bytes
    evidence: bytes
    def __init__(self, protocol: _Optional[_Union[Version, _Mapping]] = ..., bundle: _Optional[int] = ..., request: _Optional[int] = ..., device: _Optional[int] = ..., split: _Optional[int] = ..., codec: _Optional[str] = ..., payload: _Optional[bytes] = ..., exits: _Optional[_Iterable[_Union[ExitCheck, _Mapping]]] = ..., left_ms: _Optional[float] = ..., seed: _Optional[int] = ..., timed: bool = ..., ruled_out: _Optional[bytes] = ..., evidence: _Optional[bytes] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("request", "exit", "prediction", "logits", "wait_s", "compute_s", "queue_length", "bundle", "parts_s", "confidence", "ruled_out")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    PARTS_S_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    RULED_OUT_FIELD_NUMBER: _ClassVar[int]
    request: int
    exit: int
    prediction: int
    logits: bytes
    wait_s: float
    compute_s: float
    queue_length: int
    bundle: int
    parts_s: _containers.RepeatedScalarFieldContainer[float]
    confidence: float
    ruled_out: bytes
    def __init__(self, request: _Optional[int] = ..., exit: _Optional[int] = ..., prediction: _Optional[int] = ..., logits: _Optional[bytes] = ..., wait_s: _Optional[float] = ..., compute_s: _Optional[float] = ..., queue_length: _Optional[int] = ..., bundle: _Optional[int] = ..., parts_s: _Optional[_Iterable[float]] = ..., confidence: _Optional[float] = ..., ruled_out: _Optional[bytes] = ...) -> None: ...
