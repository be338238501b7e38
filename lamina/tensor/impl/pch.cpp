// The translation unit that carries the precompiled ATen header.
