//! Connect and protobuf types of envd's process and filesystem services.
