//! Tencent Cloud AGS (API v2025-09-20): wire types and a signed HTTP client.
