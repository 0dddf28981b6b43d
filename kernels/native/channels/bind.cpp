#include "binding.h"
#include "channels/table.h"

namespace sparseplan {

using namespace nb::literals;

namespace {

const ChannelsTable& table(const std::string& isa) {
#ifdef SPARSEPLAN_X86
    return table_for(isa, {&kChannelsBaseline, &kChannelsAvx512bf16});
#else
    return table_for(isa, {&kChannelsBaseline});
#endif
}

// The pieces that make up the vectors of a target.
class Routes {
  public:
    // Values of the source, in ascending order, and where each goes in the target of `size` values.
    Routes(int value_bytes, int64_t size, const std::vector<std::pair<int64_t, int64_t>>& moves) {
        const int64_t lanes = int64_t{sizeof(ChannelsPiece::lanes)} / value_bytes;
        auto move = moves.begin();
        for (int64_t begin = 0; begin < size; begin += lanes) {
            starts_.push_back(static_cast<int64_t>(pieces_.size()));
            for (; move != moves.end() && move->second < begin + lanes; ++move) {
                const int64_t source = move->first / lanes * lanes, lane = move->second - begin;
                const bool is_new = starts_.back() == static_cast<int64_t>(pieces_.size());
                if (is_new || pieces_.back().source != source) pieces_.push_back({source, 0, {}});
                pieces_.back().mask |= uint64_t{1} << lane;
                pieces_.back().lanes[lane * value_bytes] = static_cast<uint8_t>(move->first - source);
            }
        }
        starts_.push_back(static_cast<int64_t>(pieces_.size()));
    }

    ChannelsRoutes view() const { return {static_cast<int64_t>(starts_.size()) - 1, starts_.data(), pieces_.data()}; }

  private:
    std::vector<int64_t> starts_;
    std::vector<ChannelsPiece> pieces_;
};

// Kept channels of values of 1, 2 or 4 bytes.
class Channels {
  public:
    Channels(const ChannelsTable& isa, int64_t total, std::vector<int64_t> index, int value_bytes)
        : isa_(isa), total_(total), index_(std::move(index)), value_bytes_(value_bytes) {
        require(value_bytes == 1 || value_bytes == 2 || value_bytes == 4, "values must have 1, 2 or 4 bytes");
        std::vector<std::pair<int64_t, int64_t>> out, in;
        int64_t last = -1;
        for (int64_t channel : index_) {
            require(channel > last && channel < total, "channels must ascend and lie below the total");
            last = channel;
            out.emplace_back(channel, static_cast<int64_t>(out.size()));
            in.emplace_back(out.back().second, channel);
        }
        gather_.emplace(value_bytes, static_cast<int64_t>(index_.size()), out);
        scatter_.emplace(value_bytes, total, in);
    }

    void gather(uintptr_t from, size_t from_bytes, uintptr_t to, size_t to_bytes, int threads) const {
        const int64_t pixels = pixels_of(from_bytes, to_bytes, threads);
        nb::gil_scoped_release release;
        expect_writes(at<void>(to), to_bytes);
        with_moves([&](const auto& moves, auto value) {
            using T = decltype(value);
            moves.gather(plan(), at<const T>(from), at<T>(to), pixels, threads);
        });
    }

    void scatter(uintptr_t from, size_t from_bytes, uintptr_t constant, size_t constant_bytes, uintptr_t to,
                 size_t to_bytes, int threads) const {
        const int64_t pixels = pixels_of(to_bytes, from_bytes, threads);
        require(constant_bytes == bytes_of(total_), "constant differs from the channels");
        nb::gil_scoped_release release;
        expect_writes(at<void>(to), to_bytes);
        with_moves([&](const auto& moves, auto value) {
            using T = decltype(value);
            moves.scatter(plan(), at<const T>(from), at<const T>(constant), at<T>(to), pixels, threads);
        });
    }

  private:
    template <typename T>
    static T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

    // f(moves, T{}) for the type of the values.
    template <typename F>
    void with_moves(F f) const {
        if (value_bytes_ == 4) return f(isa_.words, uint32_t{});
        if (value_bytes_ == 2) return f(isa_.halves, uint16_t{});
        f(isa_.bytes, uint8_t{});
    }

    size_t bytes_of(int64_t values) const { return static_cast<size_t>(values * value_bytes_); }

    ChannelsPlan plan() const {
        return {total_, static_cast<int64_t>(index_.size()), index_.data(), gather_->view(), scatter_->view()};
    }

    int64_t pixels_of(size_t all_bytes, size_t kept_bytes, int threads) const {
        const size_t pixels = all_bytes / bytes_of(total_);
        require(threads >= 1, "threads must be at least 1");
        require(pixels * bytes_of(total_) == all_bytes && pixels * bytes_of(plan().kept) == kept_bytes,
                "sizes differ from the channels");
        return static_cast<int64_t>(pixels);
    }

    const ChannelsTable& isa_;
    int64_t total_;
    std::vector<int64_t> index_;
    std::optional<Routes> gather_, scatter_;
    int value_bytes_;
};

}  // namespace

void bind_channels(nb::module_& m) {
    nb::class_<Channels>(m, "Channels")
        .def("__init__", [](Channels* self, const std::string& isa, int64_t total, std::vector<int64_t> index,
                            int value_bytes) {
            require(total >= 1, "total must be at least 1");
            new (self) Channels(table(isa), total, std::move(index), value_bytes);
        }, nb::kw_only(), "isa"_a, "total"_a, "index"_a, "value_bytes"_a)
        .def("gather", &Channels::gather, "source"_a, "source_bytes"_a, "target"_a, "target_bytes"_a, "threads"_a)
        .def("scatter", &Channels::scatter, "source"_a, "source_bytes"_a, "constant"_a, "constant_bytes"_a, "target"_a,
             "target_bytes"_a, "threads"_a);
}

}  // namespace sparseplan
