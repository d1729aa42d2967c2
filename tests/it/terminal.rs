//! Terminals as people use them: xterm.js in a headless Chromium, full-screen programs in the sandbox. Not by default:
//! `scripts/test-browser` brings what is needed and asks for it.

mod desk;
mod programs;
mod sharing;
