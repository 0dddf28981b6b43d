// The inner kernel: for each input channel of a pixel its sign bits choose a row of weights, one multiply-add a vector.
//
// Weights are read per pixel, so a block of them lies in level 1 while all pixels of a tile pass.

namespace {

// Consecutive output pixels of a row that have the same kernel positions inside the image.
struct Strip {
    int64_t row, column;  // input pixel under kernel position 0, 0 of the first one, may lie outside the image
    int64_t input;        // its first float from the first image
    int64_t first, count;
};

// What a strip reads: consecutive channels and the rows of the first one.
struct Source {
    const char* rows;
    int64_t input;  // floats from the input of the pixel
    int64_t count;
};

// A tile of pixels under one block of output channels and one block of input.
struct Pass {
    const float* x;
    const uint16_t* slots;  // of x from float slots_begin on: bytes from a channel's first row of weights
    int64_t slots_begin;
    int64_t channel;        // first one of the group
    const char* weights;
    const sparseplan::SasRun* begin;
    const sparseplan::SasRun* end;
    const Strip* strips;
    const Strip* strips_end;
    Source* sources;        // room for those of one strip
    float* sums;            // [pixels][row pitch], partial sums
    const float* bias;
    const float* residual;  // of the first pixel, or null
    float* y;               // likewise
    const char* ahead;      // weights that the next pass reads, fetched early,
    int64_t ahead_bytes;    // this many a pixel
    int last;               // output channels in the last vector
    bool opens, closes;
};

// Independent chains of sums that cover the latency of a multiply-add where a pixel has few vectors.
constexpr int chains(int vectors) { return vectors >= 4 ? 1 : vectors >= 2 ? 2 : 4; }

constexpr int kFetchDistance = 8;  // channels: several thousand bytes, what memory sends in its latency

template <int T>
inline void add_row(Vec value, const char* row, Vec (&acc)[T]) {
    const float* weights = reinterpret_cast<const float*>(row);
#pragma GCC unroll 32
    for (int t = 0; t < T; ++t) acc[t] = multiply_add(value, load(weights + t * kLanes), acc[t]);
}

// To level 2, the rows that four channels will read.
template <int T>
inline void fetch_rows(const uint16_t* slots, const char* rows, int64_t row_block) {
    for (int c = 0; c < 4; ++c, rows += row_block) {
#pragma GCC unroll 32
        for (int byte = 0; byte < T * kLanes * 4; byte += 64) __builtin_prefetch(rows + slots[c] + byte, 0, 2);
    }
}

// Channels of one pixel under one kernel position; `rows` are those of the first channel, `row_block` bytes a channel.
template <int T, int Chains>
inline void add_run(const float* x, const uint16_t* slots, const char* rows, int64_t row_block, int64_t count,
                    bool fetches_rows, Vec (&acc)[Chains][T]) {
    const float* const end = x + count;
    for (; x + 4 <= end; x += 4, slots += 4) {
        if (fetches_rows && x + 4 + kFetchDistance <= end) {
            fetch_rows<T>(slots + kFetchDistance, rows + kFetchDistance * row_block, row_block);
        }
        const Vec quad = load_quad(x);
        uint64_t four;
        std::memcpy(&four, slots, sizeof four);
        add_row(of_quad<0>(quad), rows + (four & 0xffff), acc[0]);
        rows += row_block;
        add_row(of_quad<1>(quad), rows + (four >> 16 & 0xffff), acc[1 % Chains]);
        rows += row_block;
        add_row(of_quad<2>(quad), rows + (four >> 32 & 0xffff), acc[2 % Chains]);
        rows += row_block;
        add_row(of_quad<3>(quad), rows + (four >> 48), acc[3 % Chains]);
        rows += row_block;
    }
    for (; x < end; ++x, ++slots, rows += row_block) add_row(broadcast(*x), rows + *slots, acc[0]);
}

// Sums of one pixel to y.
template <int T>
inline void finish(const Pass& pass, int64_t offset, bool relu, Vec (&acc)[T]) {
    if (pass.residual != nullptr) {
        const float* residual = pass.residual + offset;
#pragma GCC unroll 32
        for (int t = 0; t < T - 1; ++t) acc[t] = add(acc[t], load(residual + t * kLanes));
        acc[T - 1] = add(acc[T - 1], load_first(residual + (T - 1) * kLanes, pass.last));
    }
    if (relu) {
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[t] = positive(acc[t]);
    }
    float* y = pass.y + offset;
#pragma GCC unroll 32
    for (int t = 0; t < T - 1; ++t) store(y + t * kLanes, acc[t]);
    store_first(y + (T - 1) * kLanes, acc[T - 1], pass.last);
}

template <int T>
void select_strip(const sparseplan::SasPlan& plan, const Pass& pass, const Strip& strip, const Source* end) {
    constexpr int kChains = chains(T);
    const int64_t pitch = plan.vectors * kLanes, row_block = (pitch * int64_t{sizeof(float)}) << plan.bits;
    const int64_t step = plan.stride_w * plan.c_in, start_step = pass.opens ? 0 : pitch;
    float* sums = pass.sums + strip.first * pitch;
    const float* start = pass.opens ? pass.bias : sums;
    const float* x = pass.x + strip.input + pass.channel;
    const uint16_t* slots = pass.slots + (strip.input + pass.channel - pass.slots_begin);
    const char* ahead = pass.ahead + strip.first * pass.ahead_bytes;
    for (int64_t i = 0; i < strip.count; ++i, x += step, slots += step, start += start_step, sums += pitch) {
        Vec acc[kChains][T];
#pragma GCC unroll 32
        for (int t = 0; t < T; ++t) acc[0][t] = load(start + t * kLanes);
#pragma GCC unroll 4
        for (int j = 1; j < kChains; ++j) {
#pragma GCC unroll 32
            for (int t = 0; t < T; ++t) acc[j][t] = zero();
        }
        for (const char* const stop = ahead + pass.ahead_bytes; ahead < stop; ahead += 64) __builtin_prefetch(ahead, 0, 2);
        for (const Source* source = pass.sources; source != end; ++source) {
            add_run(x + source->input, slots + source->input, source->rows, row_block, source->count,
                    plan.fetches_rows, acc);
        }
#pragma GCC unroll 4
        for (int j = 1; j < kChains; ++j) {
#pragma GCC unroll 32
            for (int t = 0; t < T; ++t) acc[0][t] = add(acc[0][t], acc[j][t]);
        }
        if (pass.closes) {
            finish(pass, (strip.first + i) * plan.c_out, plan.relu, acc[0]);
        } else {
#pragma GCC unroll 32
            for (int t = 0; t < T; ++t) store(sums + t * kLanes, acc[0][t]);
        }
    }
}

template <int T>
void select_rows(const sparseplan::SasPlan& plan, const Pass& pass) {
    for (const Strip* strip = pass.strips; strip != pass.strips_end; ++strip) {
        Source* end = pass.sources;
        for (const sparseplan::SasRun* run = pass.begin; run != pass.end; ++run) {
            const uint64_t row = static_cast<uint64_t>(strip->row + run->row);
            const uint64_t column = static_cast<uint64_t>(strip->column + run->column);
            if (row < static_cast<uint64_t>(plan.h_in) && column < static_cast<uint64_t>(plan.w_in)) {
                *end++ = {pass.weights + run->rows, run->input, run->count};
            }
        }
        if (end != pass.sources || pass.opens || pass.closes) select_strip<T>(plan, pass, *strip, end);
    }
}

using SelectRows = void (*)(const sparseplan::SasPlan&, const Pass&);

struct SelectTable {
    SelectRows of[kMaxTile + 1];
};

template <int T>
constexpr void list_select(SelectTable& table) {
    table.of[T] = select_rows<T>;
    if constexpr (T > 1) list_select<T - 1>(table);
}

constexpr SelectTable make_select_table() {
    SelectTable table{};
    list_select<kMaxTile>(table);
    return table;
}

constexpr SelectTable kSelect = make_select_table();

}  // namespace
