//! Who is ready and how many slots are free.
