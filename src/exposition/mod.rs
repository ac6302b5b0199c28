//! Text, protobuf and JSON exposition formats, in and out.
