//! A local stand-in for AGS and envd: real processes, real files, the real protocols.
