//! The instruction table that everything in [`super`] expands: a new instruction is one row here, one in each layout.

/// THE instruction table. A row: documentation, type, mnemonic, opcode, engine, then fields with their natural type and
/// default. Fields come in listing order.
macro_rules! for_each_inst {
    ($with:ident) => {
        $with! {
            /// Moves `length` pixels of `channel` bytes from memory to one bank.
            ///
            /// Pixel `i` is read at byte `ddr_addr + i·jump_read` of region `reg_id` and written at bank address
            /// `(bank_addr + (pad_start + i)·jump_write) mod depth`, byte 0 first, over ceil(channel/ICP) consecutive addresses;
            /// the unused bytes of the last one become zero (OURS). `pad_start` zero pixels come before, `pad_end` after
            /// (INF). In a feature-map bank addresses wrap; in other banks an address past the end is an error. One LOAD fills a
            /// row of a feature map, the weights of one output channel (`length` = KH·KW taps, bank 2·PP + lane), the
            /// depthwise weights (`length` = taps, all channels) or the biases (`length` 1). DEC
            ///
            /// Depthwise weights may be a vector of the workspace: a convolution of one tap then scales each channel of a map
            /// by a factor that an earlier layer computed (OURS; vendor programs load weights from the constants only).
            ///
            /// Channel augmentation is no mode: with `channel` = kw·C, `jump_read` = C and `length` = output columns the
            /// bytes of kw neighbouring pixels become channels.
            Load, "LOAD", 0x0, Load {
                /// Destination bank.
                bank_id: u32 = 0,
                /// First destination address.
                bank_addr: u32 = 0,
                /// Bank addresses between pixels.
                jump_write: u32 = 1,
                /// Bytes in memory between pixels.
                jump_read: u32 = 1,
                /// Pixels (or taps).
                length: u32 = 1,
                /// Bytes per pixel.
                channel: u32 = 1,
                /// Base register: 0 constants, 1 workspace, 2 inputs, 3 outputs.
                reg_id: u32 = 0,
                /// Byte offset in the region.
                ddr_addr: u32 = 0,
                /// Zero pixels before. INF
                pad_start: u32 = 0,
                /// Zero pixels after. INF
                pad_end: u32 = 0,
                /// UNK; 1 in every sample, ignored.
                pad_idx: u32 = 1,
                /// Mean subtraction or fill mode, UNK; only 0 executes.
                mode_avg: u32 = 0,
                /// Write to several banks, UNK; only 0 executes.
                broadcast: u32 = 0,
                /// Immediate of a fill mode, UNK; ignored in mode 0.
                const_value: u32 = 0,
            }
            /// Moves `length` pixels of `channel` bytes from one feature-map bank to memory.
            ///
            /// Pixel `i` is read at bank address `(bank_addr + i·jump_read) mod depth` over ceil(channel/ICP) consecutive
            /// addresses and written at byte `ddr_addr + i·jump_write` of region `reg_id`. DEC
            Save, "SAVE", 0x4, Save {
                /// Source bank.
                bank_id: u32 = 0,
                /// First source address.
                bank_addr: u32 = 0,
                /// Bytes in memory between pixels.
                jump_write: u32 = 1,
                /// Bank addresses between pixels.
                jump_read: u32 = 1,
                /// Pixels.
                length: u32 = 1,
                /// Bytes per pixel.
                channel: u32 = 1,
                /// Base register: 1 workspace, 2 inputs, 3 outputs.
                reg_id: u32 = 0,
                /// Byte offset in the region.
                ddr_addr: u32 = 0,
                /// AXI data port, 0 or 1. No effect on the result.
                hp_id: u32 = 0,
                /// 1: write `const_value` instead of the bank's bytes. INF
                const_en: u32 = 0,
                /// The byte to write when `const_en` is 1. INF
                const_value: u32 = 0,
            }
            /// Sets what the following CONVs share.
            ConvInit, "CONVINIT", 0x9, Conv {
                /// Rows of the kernel.
                kernel_h: u32 = 1,
                /// Columns of the kernel.
                kernel_w: u32 = 1,
                /// Input rows between output rows; also the stride packing of the input.
                stride_h: u32 = 1,
                /// Input columns between output columns.
                stride_w: u32 = 1,
                /// Input position + weight position − output position.
                shift_cut: u32 = 0,
                /// Input position + weight position − bias position, **plus one**: the accumulator has one extra
                /// fraction bit. DEC
                shift_bias: u32 = 0,
                /// Activation code, see `Activation`.
                act_type: u32 = 0,
                /// Bank addresses between input pixels (G of the input map).
                jump_read: u32 = 1,
                /// Bank addresses between input rows that share a bank.
                jump_read_endl: u32 = 1,
                /// Bank addresses between output pixels (G of the output map).
                jump_write: u32 = 1,
                /// Bank addresses between output rows that share a bank.
                jump_write_endl: u32 = 1,
                /// Stride packing of the output: rows that share a bank.
                stride_out: u32 = 1,
                /// Packed position of the window's first input row.
                stride_offset_in: u32 = 0,
                /// Packed position of the first output row.
                stride_offset_out: u32 = 0,
                /// Output rows of a CONV, 1..=PP.
                valid_pixel_parallel: u32 = 1,
            }
            /// Computes `valid_pixel_parallel` rows × `length` columns × OCP channels, one output group. DEC
            ///
            /// Output row r, column x, lane k is the sum over kernel row ky, kernel column kx, input group g and lane c of
            /// input(i = r·stride_h + ky, j = x·stride_w + kx, g, c) × weight. The input byte is lane c at the address that
            /// the essay above gives for row i, pixel j, group g. Row i counts only if `pad_top ≤ i ≤
            /// (valid_pixel_parallel − 1)·stride_h + pad_bottom`, column j only if `pad_left ≤ j ≤ (length − 1)·stride_w +
            /// pad_right`; what does not count is zero and not read, so bank addresses may point before the map
            /// (`bank_addr_in` is the address of padded column 0, row 0). The last `channel_offset` lanes of the last input
            /// group count as zero. The weight is byte c of bank `2·PP + k` at `bank_addr_weights + (ky·kernel_w + kx)·
            /// channel_group + g`, the bias byte k of the bias bank at `bank_addr_bias`; both must be inside the bank.
            ///
            /// A = 2·sum + bias·2^shift_bias as a 32-bit integer (an overflow is an error), activation, then
            /// saturate(floor(A / 2^(shift_cut + 1) + 1/2)) to signed 8 bits.
            ///
            /// Output row r: p = stride_offset_out + r; bank `bank_id_out + p / stride_out`, which must not pass the end of
            /// the bank's group (OURS); address `bank_addr_out + (p mod stride_out)·jump_write_endl + x·jump_write` mod depth.
            /// All OCP lanes are written.
            Conv, "CONV", 0x8, Conv {
                /// Bank of the window's first row.
                bank_id_in: u32 = 0,
                /// Its address, before the padding columns.
                bank_addr_in: u32 = 0,
                /// Address of rows past the first end of the bank group.
                bank_addr_in_1: u32 = 0,
                /// Address of rows past the second end.
                bank_addr_in_2: u32 = 0,
                /// Address of rows past the third end.
                bank_addr_in_3: u32 = 0,
                /// Window rows above the data for the first output row.
                pad_top: u32 = 0,
                /// Window columns left of the data for the first output column.
                pad_left: u32 = 0,
                /// Highest kernel row inside the data for the last output row; 15 if more than 15.
                pad_bottom: u32 = 0,
                /// Highest kernel column inside the data for the last output column; 15 if more than 15.
                pad_right: u32 = 0,
                /// Input groups per pixel.
                channel_group: u32 = 1,
                /// Unused lanes in the last input group.
                channel_offset: u32 = 0,
                /// Output columns.
                length: u32 = 1,
                /// First weight address of this output group.
                bank_addr_weights: u32 = 0,
                /// Bias address of this output group.
                bank_addr_bias: u32 = 0,
                /// Bank of the first output row.
                bank_id_out: u32 = 0,
                /// Its address, plus the output group when groups interleave.
                bank_addr_out: u32 = 0,
            }
            /// Sets what the following ALUs share.
            AluInit, "ALUINIT", 0x1, Misc {
                /// Operation, see `alu_mode`: 0 depthwise convolution, 2 average, 3 maximum, 6 depthwise without bias, 7 hard
                /// sigmoid; others do not execute.
                exec_mode: u32 = 0,
                /// Rows of the kernel.
                kernel_h: u32 = 1,
                /// Columns of the kernel.
                kernel_w: u32 = 1,
                /// Input rows between output rows; also the stride packing of the input.
                stride_h: u32 = 1,
                /// Input columns between output columns.
                stride_w: u32 = 1,
                /// Output columns.
                length: u32 = 1,
                /// Channel groups, all done by one ALU.
                channel_group: u32 = 1,
                /// Unused lanes in the last group; they are written as zero (OURS).
                channel_offset: u32 = 0,
                /// Right shift; average: n + input position − output position; hard sigmoid: 14 + input − output position.
                shift_cut: u32 = 0,
                /// Depthwise: as in CONVINIT (INF). Hard sigmoid: the input position (DEC).
                shift_bias: u32 = 0,
                /// Activation code, see `Activation`.
                act_type: u32 = 0,
                /// Average: the factor m of m/2^n ≈ 1/(KH·KW). INF
                multi_factor: u32 = 0,
                /// Bank addresses between input pixels.
                jump_read: u32 = 1,
                /// Bank addresses between input rows that share a bank.
                jump_read_endl: u32 = 1,
                /// Bank addresses between output pixels.
                jump_write: u32 = 1,
                /// Bank addresses between output rows that share a bank.
                jump_write_endl: u32 = 1,
                /// Weight addresses between taps: G of the weights. INF
                jump_read_weights: u32 = 1,
                /// Stride packing of the output.
                stride_out: u32 = 1,
                /// Packed position of the window's first input row.
                stride_offset_in: u32 = 0,
                /// Packed position of the first output row.
                stride_offset_out: u32 = 0,
                /// PReLU shift of negative values; ignored. UNK
                shift_prelu_n: u32 = 0,
                /// PReLU shift of positive values; ignored. UNK
                shift_prelu_p: u32 = 0,
            }
            /// Computes `valid_pixel_parallel` rows × `length` columns × all channel groups, channel by channel.
            ///
            /// Input and output addresses, and which rows and columns count, are as in CONV, with pads up to 255 on the right
            /// and bottom; output group g goes to `+ g` (DEC for maximum, INF for the rest). Per lane:
            /// depthwise — A = 2·Σ x·w + bias·2^shift_bias, weight byte c of the DWCONVW bank at `bank_addr_weights +
            /// (ky·kernel_w + kx)·jump_read_weights + g`, bias byte c at `bank_addr_bias + g`; activation, saturate(round half
            /// up(A / 2^(shift_cut + 1))). Maximum — over what counts, 0 if nothing does; activation, then shift_cut half up.
            /// Average — multi_factor · Σ x, activation, then shift_cut half up. Hard sigmoid (kernel 1×1) —
            /// clamp(2731·x + 3·2731·2^shift_bias, 0, 2^32), then shift_cut half up.
            Alu, "ALU", 0x2, Misc {
                /// Bank of the window's first row.
                bank_id_in: u32 = 0,
                /// Its address, before the padding columns.
                bank_addr_in: u32 = 0,
                /// Address of rows past the first end of the bank group.
                bank_addr_in_1: u32 = 0,
                /// Address of rows past the second end.
                bank_addr_in_2: u32 = 0,
                /// Address of rows past the third end.
                bank_addr_in_3: u32 = 0,
                /// Output rows, 1..= the ALU's pixel parallelism.
                valid_pixel_parallel: u32 = 1,
                /// Window rows above the data for the first output row.
                pad_top: u32 = 0,
                /// Window columns left of the data for the first output column.
                pad_left: u32 = 0,
                /// Highest kernel row inside the data for the last output row, at most 255.
                pad_bottom: u32 = 0,
                /// Highest kernel column inside the data for the last output column, at most 255.
                pad_right: u32 = 0,
                /// First depthwise weight address.
                bank_addr_weights: u32 = 0,
                /// First bias address.
                bank_addr_bias: u32 = 0,
                /// UNK; 1 in every sample, only 1 executes.
                kernel_d: u32 = 1,
                /// Bank of the first output row.
                bank_id_out: u32 = 0,
                /// Its address.
                bank_addr_out: u32 = 0,
            }
            /// Sets one operand of the following ELEWs. Every statement about ELEW is INF or OURS: no sample exists.
            ///
            /// Row r, pixel x, group g of the operand: q = (bank_id_in − first bank of its group) + r·jump_bank; bank = first bank
            /// + q mod PP; address `bank_addr_in + (q / PP)·jump_read_endl + x·jump_read + g` mod depth. With `share_pp` every
            /// row reads the first one.
            ElewInit, "ELEWINIT", 0xD, Misc {
                /// Operand number, 0..=3.
                id: u32 = 0,
                /// Bank of the first row.
                bank_id_in: u32 = 0,
                /// Its address.
                bank_addr_in: u32 = 0,
                /// Bank addresses between pixels.
                jump_read: u32 = 1,
                /// Bank addresses added when the rows pass the end of the bank group.
                jump_read_endl: u32 = 1,
                /// Banks between rows.
                jump_bank: u32 = 1,
                /// Left shift of the operand: finest position − own position (add); 0 (multiply). OURS
                shift_read: u32 = 0,
                /// 1: all rows read the first row. INF
                share_pp: u32 = 0,
            }
            /// Combines `num` operands, `valid_pixel_parallel` rows × `length` columns × `channel_group` groups. INF
            ///
            /// Add: S = Σ x_i·2^shift_read_i; multiply: S = Π x_i·2^shift_read_i; then ReLU if `act_type` is 1, then
            /// saturate(round half up(S / 2^shift_write)); S must fit 32 bits. For a sum `shift_write` = finest input
            /// position − output position, for a product the sum of the input positions − output position (OURS). Output row r: q =
            /// (bank_id_out − first bank) + r; bank = first bank + q mod PP; address `bank_addr_out + (q / PP)·jump_write_endl +
            /// x·jump_write + g` mod depth. Operands may be overwritten in place.
            Elew, "ELEW", 0xE, Misc {
                /// Operands, 1..=4: those with id 0..num.
                num: u32 = 1,
                /// 0 add, 1 multiply.
                elew_type: u32 = 0,
                /// 1: ReLU.
                act_type: u32 = 0,
                /// Right shift to the output position, −16..=15; negative shifts left. OURS
                shift_write: i32 = 0,
                /// Columns.
                length: u32 = 1,
                /// Channel groups.
                channel_group: u32 = 1,
                /// Rows, 1..= the element-wise pixel parallelism.
                valid_pixel_parallel: u32 = 1,
                /// Bank addresses between output pixels.
                jump_write: u32 = 1,
                /// Bank addresses added when the rows pass the end of the bank group.
                jump_write_endl: u32 = 1,
                /// Bank of the first output row.
                bank_id_out: u32 = 0,
                /// Its address.
                bank_addr_out: u32 = 0,
            }
            /// Sets what the following POOLs share. INF
            PoolInit, "POOLINIT", 0x6, Misc {
                /// 0 maximum, 1 average; others do not execute. INF
                pool_type: u32 = 0,
                /// Rows of the kernel.
                kernel_h: u32 = 1,
                /// Columns of the kernel.
                kernel_w: u32 = 1,
                /// Input rows between output rows.
                stride_h: u32 = 1,
                /// Input columns between output columns.
                stride_w: u32 = 1,
                /// Right shift: input position − output position.
                shift_cut: u32 = 0,
                /// Bank addresses between input pixels.
                jump_read: u32 = 1,
                /// Bank addresses between output pixels.
                jump_write: u32 = 1,
                /// Stride packing of the output.
                stride_out: u32 = 1,
                /// Packed position of the first input row.
                stride_offset_in: u32 = 0,
                /// Packed position of the first output row.
                stride_offset_out: u32 = 0,
                /// Output rows.
                valid_pixel_parallel: u32 = 1,
            }
            /// Computes `valid_pixel_parallel` rows × `length` columns × all channel groups: what ALU computes as maximum or
            /// average, in an older encoding. INF
            ///
            /// Rows, columns, pads and addresses are as in ALU. The average's factor m / 2^n is the one that the vendor's
            /// quantizers assume for the window (`pool_factor`), and shift_cut adds to n (OURS).
            Pool, "POOL", 0xC, Misc {
                /// Bank of the window's first row.
                bank_id_in: u32 = 0,
                /// Its address.
                bank_addr_in: u32 = 0,
                /// Address of rows past the first end of the bank group.
                bank_addr_in_1: u32 = 0,
                /// Address of rows past the second end.
                bank_addr_in_2: u32 = 0,
                /// Address of rows past the third end.
                bank_addr_in_3: u32 = 0,
                /// Window rows above the data.
                pad_top: u32 = 0,
                /// Window columns left of the data.
                pad_left: u32 = 0,
                /// As in CONV.
                pad_bottom: u32 = 0,
                /// As in CONV.
                pad_right: u32 = 0,
                /// Channel groups.
                channel_group: u32 = 1,
                /// Output columns.
                length: u32 = 1,
                /// Bank addresses between input rows that share a bank.
                jump_read_endl: u32 = 1,
                /// Bank addresses between output rows that share a bank.
                jump_write_endl: u32 = 1,
                /// Columns of a second kernel, UNK; only 0 executes.
                downsample_kernel_w: u32 = 0,
                /// Rows of a second kernel, UNK; only 0 executes.
                downsample_kernel_h: u32 = 0,
                /// Bank of the first output row.
                bank_id_out: u32 = 0,
                /// Its address.
                bank_addr_out: u32 = 0,
            }
            /// Sets what the following DPTWISEs share. INF
            DwInit, "DWINIT", 0xB, Misc {
                /// Rows of the kernel.
                kernel_h: u32 = 1,
                /// Columns of the kernel.
                kernel_w: u32 = 1,
                /// Input rows between output rows.
                stride_h: u32 = 1,
                /// Input columns between output columns.
                stride_w: u32 = 1,
                /// Right shift.
                shift_cut: u32 = 0,
                /// Left shift of the bias, plus one.
                shift_bias: u32 = 0,
                /// Bank addresses between input pixels.
                jump_read: u32 = 1,
                /// Bank addresses between input rows that share a bank.
                jump_read_endl: u32 = 1,
                /// Bank addresses between output pixels.
                jump_write: u32 = 1,
                /// Bank addresses between output rows that share a bank.
                jump_write_endl: u32 = 1,
                /// Stride packing of the output.
                stride_out: u32 = 1,
                /// Packed position of the first input row.
                stride_offset_in: u32 = 0,
                /// Packed position of the first output row.
                stride_offset_out: u32 = 0,
                /// Output rows.
                valid_pixel_parallel: u32 = 1,
            }
            /// Depthwise convolution of `valid_pixel_parallel` rows × `length` columns × all channel groups: ALU's operation 0 in
            /// an older encoding, with biases. INF
            ///
            /// The weights of tap (ky, kx) and group g lie at `bank_addr_weights + (ky·kernel_w + kx)·channel_group + g` of the
            /// DWCONVW bank, the biases of group g at `bank_addr_bias + g`.
            DptWise, "DPTWISE", 0xA, Misc {
                /// Bank of the window's first row.
                bank_id_in: u32 = 0,
                /// Its address.
                bank_addr_in: u32 = 0,
                /// Address of rows past the first end of the bank group.
                bank_addr_in_1: u32 = 0,
                /// Address of rows past the second end.
                bank_addr_in_2: u32 = 0,
                /// Address of rows past the third end.
                bank_addr_in_3: u32 = 0,
                /// Window rows above the data.
                pad_top: u32 = 0,
                /// Window columns left of the data.
                pad_left: u32 = 0,
                /// As in CONV.
                pad_bottom: u32 = 0,
                /// As in CONV.
                pad_right: u32 = 0,
                /// Channel groups.
                channel_group: u32 = 1,
                /// Unused lanes in the last group.
                channel_offset: u32 = 0,
                /// Output columns.
                length: u32 = 1,
                /// Activation code.
                act_type: u32 = 0,
                /// First weight address.
                bank_addr_weights: u32 = 0,
                /// First bias address.
                bank_addr_bias: u32 = 0,
                /// Bank of the first output row.
                bank_id_out: u32 = 0,
                /// Its address.
                bank_addr_out: u32 = 0,
            }
            /// Ends the program. Waits for the SAVE engine's own token, then raises the done signal. DEC
            End, "END", 0x7, Save {}
        }
    };
}
pub(super) use for_each_inst;
