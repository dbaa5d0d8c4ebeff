//! The instruction sets beside the executed one: where each field lies. Positions, operation codes and lengths are the
//! vendor's public ones (DOC). Of a `raw` form only operation code and length are public.

use super::{Form, InstructionSet, sets};

#[rustfmt::skip]
pub(super) static SETS: &[InstructionSet] = sets! {
    DPUCZDX8G_ISA0 1 0 {
        LOAD 0x0 4 public {
            bank_addr 0 [0 + 12] Plain; bank_id 0 [12 + 6] Plain; hp_id 0 [18 + 2] Plain;
            jump_read 1 [0 + 16] MinusOne; pad_idx 1 [16 + 5] MinusOne; pad_end 1 [21 + 5] Plain;
            pad_start 1 [26 + 5] Plain;
            channel 2 [0 + 12] MinusOne; mode_avg 2 [12 + 2] Plain; length 2 [14 + 10] MinusOne;
            jump_write 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        SAVE 0x4 4 public {
            bank_addr 0 [0 + 12] Plain; bank_id 0 [12 + 6] Plain; hp_id 0 [18 + 2] Plain;
            jump_write 1 [0 + 16] MinusOne;
            channel 2 [0 + 12] MinusOne; length 2 [14 + 10] MinusOne; jump_read 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        POOLINIT 0x6 2 raw {}
        END 0x7 1 raw {}
        CONV 0x8 5 raw {}
        CONVINIT 0x9 4 raw {}
        DPTWISE 0xA 5 raw {}
        DWINIT 0xB 3 raw {}
        POOL 0xC 5 raw {}
        ELEWINIT 0xD 2 raw {}
        ELEW 0xE 3 raw {}
    }
    DPUCVDX8G_ISA1 6 1 {
        LOAD 0x0 5 public {
            bank_addr 0 [0 + 14] Plain; bank_id 0 [14 + 6] Plain;
            jump_read 1 [0 + 16] MinusOne; pad_idx 1 [16 + 5] MinusOne; pad_end 1 [21 + 5] Plain;
            pad_start 1 [26 + 5] Plain;
            channel 2 [0 + 12] MinusOne; mode_avg 2 [12 + 2] Plain; length 2 [14 + 10] MinusOne;
            jump_write 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
            jump_write_endl 4 [0 + 14] MinusOne; block_num 4 [14 + 10] MinusOne;
        }
        ALUINIT 0x1 5 raw {}
        ALU 0x2 5 raw {}
        SAVE 0x4 4 public {
            bank_addr 0 [0 + 14] Plain; bank_id 0 [14 + 6] Plain;
            jump_write 1 [0 + 16] MinusOne;
            channel 2 [0 + 12] MinusOne; length 2 [14 + 10] MinusOne; jump_read 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        POOLINIT 0x6 2 raw {}
        END 0x7 1 raw {}
        CONV 0x8 5 raw {}
        CONVINIT 0x9 6 raw {}
        DPTWISE 0xA 5 raw {}
        DWINIT 0xB 4 raw {}
        POOL 0xC 5 raw {}
        ELEWINIT 0xD 2 raw {}
        ELEW 0xE 3 raw {}
    }
    DPUCVDX8G_ISA2 6 2 {
        LOAD 0x0 5 public {
            bank_addr 0 [0 + 14] Plain; bank_id 0 [14 + 6] Plain;
            jump_read 1 [0 + 16] MinusOne; pad_idx 1 [16 + 5] MinusOne; pad_end 1 [21 + 5] Plain;
            pad_start 1 [26 + 5] Plain;
            channel 2 [0 + 12] MinusOne; mode_avg 2 [12 + 2] Plain; length 2 [14 + 10] MinusOne;
            jump_write 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
            jump_write_endl 4 [0 + 14] MinusOne; block_num 4 [14 + 10] MinusOne;
        }
        ALUINIT 0x1 6 raw {}
        ALU 0x2 5 raw {}
        SAVE 0x4 4 public {
            bank_addr 0 [0 + 14] Plain; bank_id 0 [14 + 6] Plain;
            jump_write 1 [0 + 16] MinusOne;
            channel 2 [0 + 12] MinusOne; length 2 [14 + 10] MinusOne; jump_read 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        POOLINIT 0x6 2 raw {}
        END 0x7 1 raw {}
        CONV 0x8 5 raw {}
        CONVINIT 0x9 6 raw {}
        DPTWISE 0xA 5 raw {}
        DWINIT 0xB 4 raw {}
        POOL 0xC 5 raw {}
        ELEWINIT 0xD 2 raw {}
        ELEW 0xE 3 raw {}
    }
    DPUCVDX8G_ISA3 6 3 {
        LOAD 0x0 6 public {
            bank_addr 0 [0 + 14] Plain; bank_id 0 [14 + 6] Plain;
            jump_write 1 [0 + 10] MinusOne; jump_read 1 [10 + 16] MinusOne;
            block_num 2 [0 + 10] MinusOne; jump_write_endl 2 [10 + 14] MinusOne;
            length 3 [0 + 10] MinusOne; channel 3 [10 + 14] MinusOne; pad_idx 3 [27 + 5] MinusOne;
            reg_id 4 [0 + 3] Plain; const_value 4 [8 + 8] Plain; broadcast 4 [16 + 4] Plain;
            mode_avg 4 [20 + 2] Plain; pad_end 4 [22 + 5] Plain; pad_start 4 [27 + 5] Plain;
            ddr_addr 5 [0 + 29] Plain;
        }
        ALUINIT 0x1 6 public {
            kernel_w 0 [0 + 8] MinusOne; kernel_h 0 [8 + 8] MinusOne; exec_mode 0 [16 + 4] Plain;
            stride_offset_out 1 [0 + 8] Plain; stride_offset_in 1 [8 + 8] Plain; stride_w 1 [16 + 8] MinusOne;
            stride_h 1 [24 + 8] MinusOne;
            length 2 [0 + 11] MinusOne; channel_offset 2 [11 + 5] Plain; channel_group 2 [16 + 8] MinusOne;
            stride_out 2 [24 + 8] MinusOne;
            shift_prelu_n 3 [0 + 6] Plain; shift_cut 3 [6 + 6] Plain; shift_bias 3 [12 + 6] Plain;
            act_type 3 [18 + 4] Plain; shift_prelu_p 3 [22 + 6] Plain;
            jump_read_endl 4 [0 + 13] MinusOne; jump_read 4 [13 + 10] MinusOne; multi_factor 4 [23 + 8] Plain;
            jump_write_endl 5 [0 + 13] MinusOne; jump_write 5 [13 + 10] MinusOne;
            jump_read_weights 5 [23 + 9] MinusOne;
        }
        ALU 0x2 5 public {
            bank_addr_out 0 [0 + 14] Plain; bank_id_out 0 [14 + 6] Plain;
            bank_addr_in 1 [0 + 14] Plain; bank_id_in 1 [14 + 6] Plain; valid_pixel_parallel 1 [20 + 3] MinusOne;
            pad_bottom 1 [23 + 8] Plain;
            bank_addr_in_1 2 [0 + 14] Plain; pad_right 2 [14 + 8] Plain; pad_left 2 [22 + 4] Plain;
            pad_top 2 [26 + 4] Plain;
            bank_addr_in_2 3 [0 + 14] Plain; bank_addr_weights 3 [14 + 14] Plain; kernel_d 3 [28 + 4] MinusOne;
            bank_addr_in_3 4 [0 + 14] Plain; bank_addr_bias 4 [14 + 14] Plain;
        }
        SAVE 0x4 5 public {
            bank_addr 0 [0 + 14] Plain; bank_id 0 [14 + 6] Plain;
            jump_read 1 [0 + 10] MinusOne; jump_write 1 [10 + 16] MinusOne;
            length 2 [0 + 10] MinusOne; channel 2 [10 + 12] MinusOne;
            reg_id 3 [0 + 3] Plain; const_value 3 [8 + 8] Plain; const_en 3 [16 + 1] Plain;
            ddr_addr 4 [0 + 29] Plain;
        }
        POOLINIT 0x6 2 public {
            jump_read 0 [0 + 10] MinusOne; kernel_h 0 [10 + 3] MinusOne; kernel_w 0 [13 + 3] MinusOne;
            shift_cut 0 [16 + 4] Plain;
            pool_type 1 [0 + 2] Plain; stride_h 1 [2 + 3] MinusOne; stride_w 1 [5 + 3] MinusOne;
            stride_offset_in 1 [8 + 3] Plain; valid_pixel_parallel 1 [11 + 3] MinusOne;
            stride_offset_out 1 [14 + 3] Plain; stride_out 1 [17 + 4] MinusOne; jump_write 1 [21 + 10] MinusOne;
        }
        END 0x7 1 public {}
        CONV 0x8 5 public {
            bank_addr_out 0 [0 + 14] Plain; bank_id_out 0 [14 + 6] Plain;
            bank_addr_in 1 [0 + 14] Plain; bank_id_in 1 [14 + 6] Plain; icg_offset 1 [20 + 4] Plain;
            bank_addr_in_1 2 [0 + 14] Plain; pad_bottom 2 [14 + 4] Plain; pad_top 2 [18 + 4] Plain;
            pad_right 2 [22 + 4] Plain; pad_left 2 [26 + 4] Plain;
            bank_addr_in_2 3 [0 + 14] Plain; bank_addr_weights 3 [14 + 14] Plain;
            valid_pixel_parallel 3 [28 + 4] MinusOne;
            bank_addr_in_3 4 [0 + 14] Plain; bank_addr_bias 4 [14 + 14] Plain; ocg_offset 4 [28 + 4] Plain;
        }
        CONVINIT 0x9 6 public {
            jump_read_endl 0 [0 + 13] MinusOne; shift_cut 0 [13 + 6] Plain; tile_en 0 [19 + 1] Plain;
            jump_read 1 [0 + 10] MinusOne; shift_bias 1 [10 + 6] Plain; kernel_w 1 [16 + 4] MinusOne;
            kernel_h 1 [20 + 4] MinusOne; stride_w 1 [24 + 4] MinusOne; stride_h 1 [28 + 4] MinusOne;
            jump_write_endl 2 [0 + 13] MinusOne; stride_offset_out 2 [13 + 3] Plain;
            stride_offset_in 2 [16 + 3] Plain; act_type 2 [19 + 3] Plain; conv_num 2 [22 + 10] MinusOne;
            jump_write 3 [0 + 10] MinusOne; tile_owg 3 [10 + 6] MinusOne; tile_ocg 3 [16 + 6] MinusOne;
            tile_icg 3 [22 + 6] MinusOne; stride_out 3 [28 + 4] MinusOne;
            jump_read_weights 4 [0 + 9] MinusOne; ow_offset 4 [10 + 6] Plain; ow_iter 4 [16 + 5] Plain;
            channel_offset 4 [21 + 5] Plain; ic_iter 4 [26 + 6] Plain;
            jump_read_weights_endl 5 [0 + 13] MinusOne; hsigmoid_in 5 [13 + 4] Plain;
            shift_hsigmoid 5 [17 + 5] Plain; shift_hswish 5 [22 + 4] Plain;
        }
        DPTWISE 0xA 5 public {
            bank_addr_out 0 [0 + 14] Plain; bank_id_out 0 [14 + 6] Plain;
            bank_addr_in 1 [0 + 14] Plain; bank_id_in 1 [14 + 6] Plain;
            bank_addr_in_1 2 [0 + 14] Plain; pad_right 2 [14 + 4] Plain; pad_left 2 [18 + 4] Plain;
            pad_bottom 2 [22 + 4] Plain; pad_top 2 [26 + 4] Plain;
            bank_addr_in_2 3 [0 + 14] Plain; bank_addr_weights 3 [14 + 14] Plain;
            valid_pixel_parallel 3 [28 + 4] MinusOne;
            bank_addr_in_3 4 [0 + 14] Plain; bank_addr_bias 4 [14 + 14] Plain;
        }
        DWINIT 0xB 4 public {
            jump_read_endl 0 [0 + 12] MinusOne; channel_group 0 [12 + 8] MinusOne;
            jump_read 1 [0 + 10] MinusOne; stride_offset_out 1 [10 + 3] Plain; stride_offset_in 1 [13 + 3] Plain;
            kernel_w 1 [16 + 4] MinusOne; kernel_h 1 [20 + 4] MinusOne; stride_w 1 [24 + 4] MinusOne;
            stride_h 1 [28 + 4] MinusOne;
            jump_write_endl 2 [0 + 12] MinusOne; channel_offset 2 [19 + 5] Plain; act_type 2 [24 + 4] Plain;
            stride_out 2 [28 + 4] MinusOne;
            jump_write 3 [0 + 10] MinusOne; length 3 [10 + 10] MinusOne; shift_bias 3 [20 + 6] Plain;
            shift_cut 3 [26 + 6] Plain;
        }
        POOL 0xC 5 public {
            bank_addr_in 0 [0 + 14] Plain; pad_top 0 [14 + 3] Plain; pad_left 0 [17 + 3] Plain;
            bank_id_in 1 [0 + 6] Plain; channel_group 1 [6 + 8] MinusOne; pad_bottom 1 [14 + 3] Plain;
            pad_right 1 [17 + 3] Plain; length 1 [20 + 10] MinusOne;
            bank_id_out 2 [0 + 6] Plain; jump_write_endl 2 [6 + 13] MinusOne; jump_read_endl 2 [19 + 13] MinusOne;
            bank_addr_out 3 [0 + 14] Plain; bank_addr_in_1 3 [14 + 14] Plain;
            bank_addr_in_2 4 [0 + 14] Plain; bank_addr_in_3 4 [14 + 14] Plain;
        }
        ELEWINIT 0xD 3 public {
            share_pp 0 [13 + 1] Plain; bank_id_in 0 [14 + 6] Plain;
            bank_addr_in 1 [0 + 14] Plain; jump_read_endl 1 [14 + 13] MinusOne; id 1 [27 + 2] Plain;
            jump_bank 1 [29 + 3] MinusOne;
            jump_read 2 [0 + 12] MinusOne; shift_read 2 [12 + 4] Plain;
        }
        ELEW 0xE 3 public {
            length 0 [0 + 11] MinusOne; act_type 0 [11 + 1] Plain; elew_type 0 [12 + 2] Plain;
            bank_id_out 0 [14 + 6] Plain;
            bank_addr_out 1 [0 + 14] Plain; jump_write_endl 1 [14 + 13] MinusOne; num 1 [27 + 2] MinusOne;
            valid_pixel_parallel 1 [29 + 3] MinusOne;
            jump_write 2 [0 + 12] MinusOne; shift_write 2 [12 + 5] Plain; channel_group 2 [17 + 8] MinusOne;
        }
    }
    DPUCV2DX8G_ISA0 9 0 {
        LOAD 0x0 6 public {
            mt_addr 0 [0 + 17] Plain; mt_dst 0 [17 + 3] Plain;
            pad_idx 1 [0 + 5] MinusOne; pad_end 1 [5 + 5] Plain; pad_start 1 [10 + 5] Plain;
            broadcast 1 [15 + 4] Plain; block_num 1 [19 + 10] MinusOne;
            jump_read 2 [0 + 16] MinusOne; const_value 2 [16 + 8] Plain; reg_id 2 [24 + 8] Plain;
            channel 3 [0 + 15] MinusOne; length 3 [15 + 10] MinusOne; mode_avg 3 [30 + 2] Plain;
            ddr_addr 4 [0 + 29] Plain;
            jump_write_endl 5 [0 + 18] MinusOne; jump_write 5 [18 + 12] MinusOne;
        }
        ALUINIT 0x1 8 public {
            kernel_w 0 [0 + 8] MinusOne; kernel_h 0 [8 + 8] MinusOne; exec_mode 0 [16 + 4] Plain;
            tile_ohg 1 [0 + 6] MinusOne; tile_owg 1 [6 + 3] MinusOne; share_channel_group 1 [9 + 1] Plain;
            share_kernel 1 [10 + 1] Plain; num 1 [11 + 2] MinusOne; b_mode 1 [13 + 3] Plain;
            stride_w 1 [16 + 8] MinusOne; stride_h 1 [24 + 8] MinusOne;
            hsigmoid_in 2 [0 + 4] Plain; shift_hsigmoid 2 [4 + 5] Plain; shift_hswish 2 [9 + 4] Plain;
            ow_offset 2 [13 + 6] Plain; ow_iter 2 [19 + 5] Plain; tile_cg 2 [24 + 6] MinusOne;
            macc_cont 2 [30 + 2] Plain;
            alu_num 3 [0 + 12] MinusOne; share_pp_0 3 [12 + 1] Plain; share_pp_1 3 [13 + 1] Plain;
            share_pp_2 3 [14 + 1] Plain; share_pp_3 3 [15 + 1] Plain; shift_cut 3 [16 + 7] Plain;
            shift_bias 3 [23 + 6] Plain; act_type 3 [29 + 3] Plain;
            shift_read_0 4 [0 + 4] Plain; shift_read_1 4 [4 + 4] Plain; shift_read_2 4 [8 + 4] Plain;
            shift_read_3 4 [12 + 4] Plain; weights_lines 4 [17 + 15] Plain;
            one_line 5 [0 + 10] Plain; one_height 5 [10 + 10] Plain; total_tile 5 [20 + 9] MinusOne;
            incAO3 6 [0 + 24] Plain;
            incAO2 7 [0 + 18] Plain;
        }
        ALU 0x2 3 public {
            pad_bottom 0 [0 + 4] Plain; pad_right 0 [4 + 4] Plain; pad_top 0 [8 + 4] Plain;
            pad_left 0 [12 + 4] Plain; macc_cont 0 [16 + 2] Plain; reuse 0 [18 + 1] Plain;
            mt_addr_weights 1 [0 + 17] Plain;
            mt_addr_bias 2 [0 + 17] Plain;
        }
        ALUADDR 0x3 3 public {
            h_num 0 [0 + 6] Plain; direction 0 [6 + 1] Plain; last 0 [7 + 1] Plain; invalid 0 [8 + 1] Plain;
            mt_addr 1 [0 + 17] Plain; macc_dim 1 [26 + 2] Plain;
            jump_endl 2 [0 + 15] MinusOne; jump 2 [15 + 15] MinusOne; id 2 [30 + 2] Plain;
        }
        SAVE 0x4 4 public {
            mt_addr 0 [0 + 17] Plain; const_en 0 [17 + 1] Plain;
            jump_write 1 [0 + 16] MinusOne; const_value 1 [16 + 8] Plain; reg_id 1 [24 + 8] Plain;
            channel 2 [0 + 12] MinusOne; length 2 [12 + 10] MinusOne; jump_read 2 [22 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain;
        }
        CONVADDR 0x5 2 public {
            h_num 0 [0 + 6] Plain; direction 0 [6 + 1] Plain; last 0 [7 + 1] Plain; invalid 0 [8 + 1] Plain;
            mt_word_addr 1 [0 + 17] Plain;
        }
        END 0x7 1 public {}
        CONV 0x8 3 public {
            pad_bottom 0 [0 + 4] Plain; pad_right 0 [4 + 4] Plain; ocg_offset 0 [12 + 4] Plain;
            icg_offset 0 [16 + 4] Plain;
            mt_word_addr_weights 1 [0 + 17] Plain; macc_cont 1 [17 + 2] Plain; reuse 1 [19 + 1] Plain;
            pad_top 1 [24 + 4] Plain; pad_left 1 [28 + 4] Plain;
            mt_word_addr_bias 2 [0 + 17] Plain;
        }
        CONVINIT 0x9 9 public {
            stride_w 0 [0 + 4] MinusOne; stride_h 0 [4 + 4] MinusOne; kernel_w 0 [8 + 4] MinusOne;
            kernel_h 0 [12 + 4] MinusOne; act_type 0 [16 + 3] Plain;
            tile_owg 1 [0 + 3] MinusOne; tile_ohg 1 [3 + 6] MinusOne; tile_ocg 1 [9 + 6] MinusOne;
            tile_icg 1 [15 + 6] MinusOne; total_in 1 [21 + 11] Plain;
            hsigmoid_in 2 [0 + 4] Plain; shift_hsigmoid 2 [4 + 5] Plain; shift_hswish 2 [9 + 4] Plain;
            ow_offset 2 [13 + 6] Plain; ow_iter 2 [19 + 5] Plain; ic_iter 2 [24 + 6] Plain;
            jump_read_endl 3 [0 + 15] MinusOne; jump_read 3 [15 + 15] MinusOne;
            jump_write_endl 4 [0 + 15] MinusOne; jump_write 4 [15 + 15] MinusOne;
            jump_read_weights_endl 5 [0 + 11] MinusOne; jump_read_weights 5 [11 + 10] MinusOne;
            tile_en 5 [21 + 1] Plain; conv_num 5 [22 + 10] MinusOne;
            one_line 6 [0 + 10] Plain; one_height 6 [10 + 10] Plain; shift_cut 6 [20 + 6] Plain;
            shift_bias 6 [26 + 6] Plain;
            total_oc_in 7 [0 + 17] Plain; total_tile 7 [17 + 9] MinusOne;
            one_size 8 [0 + 20] Plain; one_cube 8 [20 + 12] Plain;
        }
    }
    DPUCV2DX8G_ISA1 9 1 {
        LOAD 0x0 6 public {
            mt_addr 0 [0 + 17] Plain; mt_dst 0 [17 + 3] Plain;
            pad_idx 1 [0 + 5] MinusOne; pad_end 1 [5 + 6] Plain; pad_start 1 [11 + 6] Plain;
            broadcast 1 [18 + 4] Plain; block_num 1 [22 + 10] MinusOne;
            jump_read 2 [0 + 16] MinusOne; const_value 2 [16 + 8] Plain; reg_id 2 [24 + 8] Plain;
            channel 3 [0 + 15] MinusOne; length 3 [15 + 10] MinusOne; mode_avg 3 [30 + 2] Plain;
            ddr_addr 4 [0 + 29] Plain;
            jump_write_endl 5 [0 + 18] MinusOne; jump_write 5 [18 + 12] MinusOne;
        }
        ALUINIT 0x1 8 public {
            kernel_w 0 [0 + 8] MinusOne; kernel_h 0 [8 + 8] MinusOne; exec_mode 0 [16 + 4] Plain;
            tile_ohg 1 [0 + 6] MinusOne; tile_owg 1 [6 + 3] MinusOne; share_channel_group 1 [9 + 1] Plain;
            share_kernel 1 [10 + 1] Plain; num 1 [11 + 2] MinusOne; b_mode 1 [13 + 3] Plain;
            stride_w 1 [16 + 8] MinusOne; stride_h 1 [24 + 8] MinusOne;
            hsigmoid_in 2 [0 + 4] Plain; shift_hsigmoid 2 [4 + 5] Plain; shift_hswish 2 [9 + 4] Plain;
            ow_offset 2 [13 + 6] Plain; ow_iter 2 [19 + 5] Plain; tile_cg 2 [24 + 6] MinusOne;
            pad_type 2 [30 + 2] Plain;
            alu_num 3 [0 + 12] MinusOne; shift_cut 3 [16 + 7] Plain; shift_bias 3 [23 + 6] Plain;
            act_type 3 [29 + 3] Plain;
            shift_read_0 4 [0 + 4] Plain; shift_read_1 4 [4 + 4] Plain; shift_read_2 4 [8 + 4] Plain;
            shift_read_3 4 [12 + 4] Plain; weights_lines 4 [17 + 15] Plain;
            one_width 5 [0 + 10] Plain; one_height 5 [10 + 10] Plain; total_tile 5 [20 + 9] MinusOne;
            incAO3 6 [0 + 24] Plain; kh_iter 6 [24 + 8] Plain;
            incAO2 7 [0 + 18] Plain; kw_iter 7 [24 + 8] Plain;
        }
        ALU 0x2 2 public {
            pad_right_mt 0 [0 + 8] Plain; pad_top 0 [8 + 4] Plain; pad_left 0 [12 + 4] Plain;
            macc_cont 0 [16 + 2] Plain; reuse 0 [18 + 1] Plain;
            pad_right_at 1 [0 + 4] Plain; pad_bottom_at 1 [4 + 4] Plain; pad_bottom_mt 1 [24 + 8] Plain;
        }
        ALUADDR 0x3 3 public {
            h_num 0 [0 + 8] Plain; invalid 0 [8 + 1] Plain; compression 0 [9 + 1] Plain; last 0 [10 + 1] Plain;
            type 0 [17 + 3] Plain;
            mt_addr 1 [0 + 17] Plain; macc_dim 1 [26 + 2] Plain;
            jump_endl 2 [0 + 15] MinusOne; jump 2 [15 + 15] MinusOne; id 2 [30 + 2] Plain;
        }
        SAVE 0x4 4 public {
            mt_addr 0 [0 + 17] Plain; const_en 0 [17 + 1] Plain; argmax 0 [18 + 2] Plain;
            jump_write 1 [0 + 16] MinusOne; const_value 1 [16 + 8] Plain; reg_id 1 [24 + 8] Plain;
            channel 2 [0 + 12] MinusOne; length 2 [12 + 10] MinusOne; jump_read 2 [22 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain;
        }
        CONVADDR 0x5 3 public {
            h_num 0 [0 + 8] Plain; invalid 0 [8 + 1] Plain; compression 0 [9 + 1] Plain; last 0 [10 + 1] Plain;
            type 0 [17 + 3] Plain;
            mt_addr 1 [0 + 17] Plain;
            jump_endl 2 [0 + 16] MinusOne; jump 2 [16 + 14] MinusOne;
        }
        END 0x7 1 public {}
        CONV 0x8 2 public {
            pad_left 0 [0 + 4] Plain; pad_right 0 [4 + 8] Plain; ocg_offset 0 [12 + 4] Plain;
            icg_offset 0 [16 + 4] Plain;
            macc_cont 1 [17 + 2] Plain; reuse 1 [19 + 1] Plain; pad_top 1 [20 + 4] Plain;
            pad_bottom 1 [24 + 8] Plain;
        }
        CONVINIT 0x9 7 public {
            stride_w 0 [0 + 4] MinusOne; stride_h 0 [4 + 4] MinusOne; kernel_w 0 [8 + 4] MinusOne;
            kernel_h 0 [12 + 4] MinusOne; exec_mode 0 [16 + 4] Plain;
            tile_owg 1 [0 + 3] MinusOne; tile_ohg 1 [3 + 6] MinusOne; tile_ocg 1 [9 + 6] MinusOne;
            tile_icg 1 [15 + 6] MinusOne; total_in 1 [21 + 11] Plain;
            hsigmoid_in 2 [0 + 4] Plain; shift_hsigmoid 2 [4 + 5] Plain; shift_hswish 2 [9 + 4] Plain;
            ow_offset 2 [13 + 6] Plain; ow_iter 2 [19 + 5] Plain; ic_iter 2 [24 + 6] Plain;
            conv_num 3 [0 + 10] MinusOne; aie_mode 3 [10 + 3] Plain; act_type 3 [13 + 4] Plain;
            kh_iter 3 [20 + 6] Plain; kw_iter 3 [26 + 6] Plain;
            one_width 4 [0 + 10] Plain; one_height 4 [10 + 10] Plain; shift_cut 4 [20 + 6] Plain;
            shift_bias 4 [26 + 6] Plain;
            one_size 5 [0 + 10] Plain; total_tile 5 [10 + 9] MinusOne; tile_en 5 [19 + 1] Plain;
            one_cube 5 [20 + 12] Plain;
            elew_act_type 6 [9 + 4] Plain; elew_cut 6 [13 + 7] Plain; shift_elew1 6 [20 + 6] Plain;
            shift_elew0 6 [26 + 6] Plain;
        }
    }
    DPUCAHX8H_ISA2 2 2 {
        LOAD 0x0 6 public {
            bank_addr 0 [0 + 13] Plain; bank_id 0 [14 + 6] Plain;
            jump_read 1 [0 + 16] MinusOne; pad_idx 1 [16 + 5] MinusOne; pad_end 1 [21 + 5] Plain;
            pad_start 1 [26 + 5] Plain;
            channel 2 [0 + 12] MinusOne; mode_avg 2 [12 + 2] Plain; length 2 [14 + 10] MinusOne;
            jump_write 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
            jump_read_endl 4 [0 + 16] MinusOne; output_channel_num 4 [16 + 7] MinusOne; ddr_mode 4 [23 + 1] Plain;
            ddr_addr_1 5 [0 + 29] Plain; reg_id_1 5 [29 + 3] Plain;
        }
        SAVE 0x4 4 public {
            bank_addr 0 [0 + 13] Plain; bank_id 0 [14 + 6] Plain;
            jump_write 1 [0 + 16] MinusOne;
            channel 2 [0 + 12] MinusOne; length 2 [14 + 10] MinusOne; jump_read 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        POOLINIT 0x6 2 raw {}
        END 0x7 1 raw {}
        CONV 0x8 5 raw {}
        CONVINIT 0x9 4 raw {}
        DPTWISE 0xA 5 raw {}
        DWINIT 0xB 4 raw {}
        POOL 0xC 5 raw {}
        ELEWINIT 0xD 2 raw {}
        ELEW 0xE 3 raw {}
    }
    DPUCAHX8L_ISA0 3 0 {
        LOAD 0x0 7 public {
            length 0 [0 + 12] MinusOne; bank_id 0 [12 + 7] Plain; mode 0 [19 + 1] Plain;
            jump_read 1 [0 + 12] MinusOne; channel 1 [12 + 12] MinusOne; jump_write 1 [24 + 8] MinusOne;
            pad_idx 2 [0 + 5] MinusOne; pad_end 2 [5 + 5] Plain; pad_start 2 [10 + 5] Plain;
            mode_avg 2 [15 + 2] Plain; pad_top 2 [17 + 4] Plain; pad_bottom 2 [21 + 4] Plain;
            channel_offset 2 [25 + 6] Plain;
            bank_addr 3 [0 + 24] Plain;
            ddr_addr 4 [0 + 29] Plain; reg_id 4 [29 + 3] Plain;
            ddr_addr_1 5 [0 + 29] Plain; reg_id_1 5 [29 + 3] Plain;
            ddr_addr_2 6 [0 + 29] Plain; reg_id_2 6 [29 + 3] Plain;
        }
        SAVE 0x4 4 public {
            length 0 [0 + 12] MinusOne; bank_id 0 [12 + 6] Plain; hp_id 0 [18 + 2] Plain;
            jump_write 1 [0 + 12] MinusOne; jump_read 1 [12 + 8] MinusOne; channel 1 [20 + 12] MinusOne;
            bank_addr 2 [0 + 24] Plain;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        CBLOAD 0x5 3 raw {}
        POOLINIT 0x6 2 raw {}
        END 0x7 1 raw {}
        CONV 0x8 7 raw {}
        CONVINIT 0x9 5 raw {}
        DPTWISE 0xA 6 raw {}
        DWINIT 0xB 4 raw {}
        POOL 0xC 5 raw {}
        ELEWINIT 0xD 3 raw {}
        ELEW 0xE 4 raw {}
    }
    DPUCVDX8H_ISA1 5 1 {
        LOAD 0x0 5 public {
            bank_addr 0 [0 + 13] Plain; output_channel_num 0 [13 + 7] MinusOne;
            jump_read 1 [0 + 16] MinusOne; bank_id 1 [16 + 8] Plain; ddr_mode 1 [24 + 1] Plain;
            pad_idx 1 [25 + 5] MinusOne;
            channel 2 [0 + 12] MinusOne; mode_avg 2 [12 + 2] Plain; length 2 [14 + 10] MinusOne;
            jump_write 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
            jump_read_endl 4 [0 + 21] MinusOne; pad_end 4 [21 + 6] Plain; pad_start 4 [27 + 5] Plain;
        }
        SAVE 0x4 4 public {
            bank_addr 0 [0 + 13] Plain;
            jump_write 1 [0 + 16] MinusOne; bank_id 1 [16 + 8] Plain;
            channel 2 [0 + 12] MinusOne; length 2 [14 + 10] MinusOne; jump_read 2 [24 + 8] MinusOne;
            ddr_addr 3 [0 + 29] Plain; reg_id 3 [29 + 3] Plain;
        }
        POOLINIT 0x6 4 raw {}
        END 0x7 1 raw {}
        CONV 0x8 5 raw {}
        CONVINIT 0x9 5 raw {}
        DPTWISE 0xA 5 raw {}
        DWINIT 0xB 4 raw {}
        POOL 0xC 5 raw {}
        ELEWINIT 0xD 2 raw {}
        ELEW 0xE 4 raw {}
    }
};
