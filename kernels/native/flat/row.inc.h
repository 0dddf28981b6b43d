// What an inner kernel computes of one output channel.

namespace {

struct Row {
    const sparseplan::Entry* begin;
    const sparseplan::Entry* end;
    float bias;
    bool opens;   // starts from the bias, else from the partial sums of earlier channels
    bool closes;  // ends with the rectifier
};

}  // namespace
